"""Small messages through a relay: one client's round trip, 64 clients at once, new connections."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.relay_peers import OURS, Peer, peers
from benchmarks.relay_running import Running, all_running, load, on_one_core
from benchmarks.report import Better, Measurement, Ratio, Section, ratio_of
from benchmarks.rounds import Contestant, take

NAME: Final = "relay-messages"
SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Case:
    """What is measured, and the number of those that `relay_load` prints that counts."""

    text: str
    mode: str
    clients: int
    field: int
    unit: str
    better: Better
    bounds: dict[str, float]


_CASES: Final = (
    _Case("round trip", "ask", 1, 1, "us, p50", "lower", {"nginx": 1.15}),
    _Case("requests of 64 clients", "ask", 64, 0, "a second", "higher", {"nginx": 0.75}),
    _Case("connections", "connect", 16, 0, "a second", "higher", {"nginx": 0.65, "socat": 3.0}),
)


def run(rounds: int) -> Section:
    """Measure all peers."""
    return measure(peers(), rounds=rounds, seconds=SECONDS)


def measure(contestants: Sequence[Peer], *, rounds: int, seconds: float) -> Section:
    """Measure these, for so long a sample."""
    rows: list[Measurement] = []
    ratios: list[Ratio] = []
    with all_running(contestants, "unix to TCP") as relays:
        for case in _CASES:
            takers = [_taker(who, one, case, seconds) for who, one in relays.items()]
            found = take(takers, rounds=rounds, unit=case.unit)
            named = {who: _named(case, one) for who, one in found.items()}
            rows += named.values()
            ratios += _ratios(case, named)
    return Section(
        NAME,
        "200 bytes there and back, from unix socket to TCP, by one client (all on one core) and by "
        "64; connections by 16 clients, one byte there and back on each.",
        tuple(rows),
        tuple(ratios),
    )


def _taker(who: str, relay: Running | str, case: _Case, seconds: float) -> Contestant:
    if isinstance(relay, str):
        return Contestant(who, absent=relay)
    return Contestant(who, _sampler(relay, case, seconds))


def _sampler(relay: Running, case: _Case, seconds: float) -> Callable[[], float]:
    def sample() -> float:
        alone = case.clients == 1
        with on_one_core(relay) if alone else contextlib.nullcontext():
            return load(relay, case.mode, case.clients, seconds)[case.field]

    return sample


def _named(case: _Case, one: Measurement) -> Measurement:
    return Measurement(f"{one.who}, {case.text}", one.unit, one.samples, one.absent)


def _ratios(case: _Case, found: dict[str, Measurement]) -> Iterator[Ratio]:
    for who, one in found.items():
        if who != OURS:
            yield ratio_of(found[OURS], one, bound=case.bounds.get(who), better=case.better)
