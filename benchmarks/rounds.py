"""Taking turns: each contestant is measured once a round, so that a slow moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.report import Measurement


@dataclass(frozen=True, slots=True)
class Contestant:
    """One that is measured.

    Attributes:
        who: its name in the table.
        sample: does the work once and returns the number, in the unit of the measurement.
        absent: why it is not measured here; empty where it is.
    """

    who: str
    sample: Callable[[], float] | None = None
    absent: str = ""


def take(contestants: Sequence[Contestant], *, rounds: int, unit: str) -> dict[str, Measurement]:
    """Measure all in turns, after one turn each that does not count.

    Returns:
        name -> measurement, in the order of the contestants.
    """
    samples: dict[str, list[float]] = {one.who: [] for one in contestants}
    for number in range(rounds + 1):
        for one in contestants:
            if one.sample is not None and not one.absent:
                value = one.sample()
                if number:
                    samples[one.who].append(value)
    return {
        one.who: Measurement(one.who, unit, tuple(samples[one.who]), one.absent)
        for one in contestants
    }


def rate(work: Callable[[], object], *, seconds: float, batch: int = 1) -> float:
    """Return how often a second `work` is done; each call does it `batch` times."""
    done = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not done:
        work()
        done += batch
    return done / elapsed
