"""Contestants that take turns, and the Markdown that tells of their medians and ratios."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Contestant: TypeAlias = Callable[[], float] | str
"""What does the work once and returns the number that counts; or why it is absent."""

_WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contestant's samples, one a round, in `unit`; or why it is absent."""

    who: str
    unit: str
    samples: tuple[float, ...] = ()
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A measured ratio, None where a contestant is absent, and the least or most it may be."""

    what: str
    value: float | None
    bound: float
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Return whether the bound is kept; None where a contestant is absent."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark: its name, what every contestant did, and what came of it."""

    name: str
    work: str
    measurements: Sequence[Measurement]
    ratios: Sequence[Ratio]


def take(
    contestants: Mapping[str, Contestant], *, rounds: int, unit: str
) -> dict[str, Measurement]:
    """Measure all in turns, so that a slow moment hits all alike; the first turn does not count."""
    samples: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds + 1):
        for who, contestant in contestants.items():
            if not isinstance(contestant, str):
                samples[who].append(contestant())
    return {
        who: Measurement(who, unit, absent=contestant)
        if isinstance(contestant, str)
        else Measurement(who, unit, tuple(samples[who][1:]))
        for who, contestant in contestants.items()
    }


def rate(work: Callable[[], object], *, seconds: float, batch: int = 1) -> float:
    """Return how often a second `work` is done; each call does it `batch` times."""
    done = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not done:
        work()
        done += batch
    return done / elapsed


def ratio_of(
    mine: Measurement, theirs: Measurement, bound: float, *, at_most: bool = False
) -> Ratio:
    """Return the median of the ratios within each round, as a slow moment hits both of a round."""
    rounds = [my / their for my, their in zip(mine.samples, theirs.samples, strict=False)]
    value = statistics.median(rounds) if rounds else None
    return Ratio(f"{mine.who} / {theirs.who}", value, bound, at_most)


def report(sections: Sequence[Section], rounds: int) -> str:
    """Return Markdown: every ratio, then the medians of each benchmark."""
    cores = len(os.sched_getaffinity(0))
    ratios = (_ratio_row(each.name, one) for each in sections for one in each.ratios)
    blocks = [
        f"Python {platform.python_version()}, {cores} cores, {rounds} rounds.",
        _table(("what", "measured", "bound", "reached"), ratios),
    ]
    for each in sections:
        medians = ((one.who, _median(one)) for one in each.measurements if one.samples)
        absent = (f"Absent: {one.who}: {one.absent}" for one in each.measurements if one.absent)
        blocks += [f"### {each.name}", textwrap.fill(each.work, _WIDTH)]
        blocks += [_table(("contestant", "median"), medians)]
        blocks += [textwrap.fill(text, _WIDTH) for text in absent]
    return "\n\n".join(blocks) + "\n"


def _ratio_row(name: str, one: Ratio) -> tuple[str, ...]:
    measured = "absent" if one.value is None else _number(one.value)
    reached = {True: "yes", False: "no", None: ""}[one.reached]
    bound = f"at {'most' if one.at_most else 'least'} {one.bound:g}"
    return (f"{name}: {one.what}", measured, bound, reached)


def _median(one: Measurement) -> str:
    return f"{_number(statistics.median(one.samples))} {one.unit}"


def _number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
