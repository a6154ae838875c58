"""Long streams through a relay: one and 64, up and down, dialled from either kind of socket."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.relay_peers import C_RELAY, OURS, Peer, peers
from benchmarks.relay_running import Dials, Running, all_running, load
from benchmarks.report import Measurement, Ratio, Section, ratio_of
from benchmarks.rounds import Contestant, take

NAME: Final = "relay-streams"
STREAM_BYTES: Final = 256 * 1024 * 1024

_DIALS: Final[tuple[Dials, ...]] = ("unix to TCP", "TCP to unix")
_SHARES: Final = ((1, "one"), (64, "64"))
_NO_SLOWER_THAN_NGINX: Final = 0.8
_FASTER_THAN: Final = {"nginx": 1.0, "haproxy": 1.5, "socat": 1.5}


@dataclass(frozen=True, slots=True)
class _Case:
    dials: Dials
    mode: str
    streams: int
    text: str


def run(rounds: int) -> Section:
    """Measure all peers."""
    return measure(peers(), rounds=rounds, size=STREAM_BYTES)


def measure(contestants: Sequence[Peer], *, rounds: int, size: int) -> Section:
    """Measure these, with `size` bytes in all for each sample."""
    speeds: dict[_Case, dict[str, Measurement]] = {}
    cpu: dict[str, list[list[float]]] = {one.who: [] for one in contestants}
    for dials in _DIALS:
        with all_running(contestants, dials) as relays:
            for case in _cases(dials):
                used: dict[str, list[float]] = {who: [] for who in relays}
                takers = [_taker(who, one, case, size, used[who]) for who, one in relays.items()]
                speeds[case] = take(takers, rounds=rounds, unit="MB/s")
                for who, samples in used.items():
                    cpu[who].append(samples[1:])  # the first turn does not count
    means = {
        one.who: _mean(one.who, [case[one.who] for case in speeds.values()]) for one in contestants
    }
    costs = {who: _cost(who, samples, means[who].absent, size) for who, samples in cpu.items()}
    return Section(
        NAME,
        f"{size / 1e6:.0f} MB through each relay as one stream, or as 64 at a time; up is from the "
        "side that dials the relay.",
        (*_rows(speeds), *means.values(), *costs.values()),
        tuple(_ratios(speeds, means, costs)),
    )


def _cases(dials: Dials) -> Iterator[_Case]:
    for streams, text in _SHARES:
        for mode in ("up", "down"):
            yield _Case(dials, mode, streams, f"{dials}, {text} {mode}")


def _taker(who: str, relay: Running | str, case: _Case, size: int, used: list[float]) -> Contestant:
    if isinstance(relay, str):
        return Contestant(who, absent=relay)
    return Contestant(who, _sampler(relay, case, size, used))


def _sampler(relay: Running, case: _Case, size: int, used: list[float]) -> Callable[[], float]:
    def sample() -> float:
        before = relay.cpu_seconds()
        (seconds,) = load(relay, case.mode, case.streams, size // case.streams)
        used.append(relay.cpu_seconds() - before)
        return size / seconds / 1e6

    return sample


def _mean(who: str, cases: Sequence[Measurement]) -> Measurement:
    """Of all cases, for each round."""
    rounds = zip(*(case.samples for case in cases), strict=True)
    means = tuple(statistics.fmean(samples) for samples in rounds)
    return Measurement(f"{who}, mean of all", "MB/s", means, cases[0].absent)


def _cost(who: str, cases: Sequence[Sequence[float]], absent: str, size: int) -> Measurement:
    """Of all cases together, for each round."""
    gigabytes = len(cases) * size / 1e9
    samples = tuple(sum(used) / gigabytes for used in zip(*cases, strict=True))
    return Measurement(f"{who}, CPU", "s/GB", samples, absent)


def _rows(speeds: Mapping[_Case, Mapping[str, Measurement]]) -> Iterator[Measurement]:
    for case, found in speeds.items():
        for who, one in found.items():
            yield Measurement(f"{who}, {case.text}", one.unit, one.samples, one.absent)


def _ratios(
    speeds: Mapping[_Case, Mapping[str, Measurement]],
    means: Mapping[str, Measurement],
    costs: Mapping[str, Measurement],
) -> Iterator[Ratio]:
    for who, bound in _FASTER_THAN.items():
        if who in means:
            yield ratio_of(means[OURS], means[who], bound=bound)
    for case, found in speeds.items():
        if "nginx" in found:
            one = ratio_of(found[OURS], found["nginx"], bound=_NO_SLOWER_THAN_NGINX)
            yield Ratio(f"{one.text}, {case.text}", one.value, one.bound)
    yield ratio_of(costs[OURS], costs[C_RELAY], bound=1.0, better="lower")
    yield ratio_of(means[OURS], means[C_RELAY])
