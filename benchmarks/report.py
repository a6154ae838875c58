"""What a benchmark measured: medians, ratios to its peers and limits, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Better = Literal["higher", "lower"]

_TIMES: Final = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contestant's samples, or why there are none.

    Attributes:
        who: the contestant.
        unit: of the samples, such as `documents/s` or `ms`.
        samples: one a round, in the order in which they were taken.
        absent: why it could not be measured here; empty where it was.
    """

    who: str
    unit: str
    samples: tuple[float, ...] = ()
    absent: str = ""

    @property
    def median(self) -> float | None:
        """Return the median of the samples; None where the contestant is absent."""
        return statistics.median(self.samples) if self.samples else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """A measured ratio beside what it ought to be.

    Attributes:
        text: what is divided by what, such as `warm verifier / evervault`.
        value: the ratio; None where one of the two is absent.
        bound: what is to be reached; None for a ratio that is only reported.
        better: whether `bound` is the least ("higher") or the most ("lower").
    """

    text: str
    value: float | None
    bound: float | None = None
    better: Better = "higher"

    @property
    def verdict(self) -> str:
        """Return `reached`, `missed`, `absent`, or nothing where no bound is set."""
        if self.value is None:
            return "absent"
        if self.bound is None:
            return ""
        met = self.value >= self.bound if self.better == "higher" else self.value <= self.bound
        return "reached" if met else "missed"


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark's results.

    Attributes:
        name: as on the command line.
        work: what every contestant did, in one sentence.
        measurements: the contestants.
        ratios: what they come to.
    """

    name: str
    work: str
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]

    def table(self) -> str:
        """Markdown: the contestants, then the ratios."""
        lines = [f"### {self.name}", "", self.work, ""]
        lines += _rows(
            ("contestant", "median", "lowest", "highest", "rounds"),
            (_measurement_row(one) for one in self.measurements),
        )
        if self.ratios:
            lines += [
                "",
                *_rows(("ratio", "measured", "to reach", ""), map(_ratio_row, self.ratios)),
            ]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, object]:
        """Return the same for programs."""
        return {
            "name": self.name,
            "work": self.work,
            "measurements": [
                {
                    "who": one.who,
                    "unit": one.unit,
                    "median": one.median,
                    "samples": list(one.samples),
                    **({"absent": one.absent} if one.absent else {}),
                }
                for one in self.measurements
            ],
            "ratios": [
                {
                    "text": one.text,
                    "value": one.value,
                    "bound": one.bound,
                    "better": one.better,
                    "verdict": one.verdict,
                }
                for one in self.ratios
            ],
        }


def ratio_of(
    mine: Measurement, theirs: Measurement, *, bound: float | None = None, better: Better = "higher"
) -> Ratio:
    """Return the median of the ratios within each round, as a slow moment hits both of a round."""
    rounds = [my / their for my, their in zip(mine.samples, theirs.samples, strict=False)]
    value = statistics.median(rounds) if rounds else None
    return Ratio(f"{mine.who} / {theirs.who}", value, bound, better)


def summary(sections: Sequence[Section]) -> str:
    """Markdown: every ratio that has a bound."""
    bounded = [
        (each.name, one) for each in sections for one in each.ratios if one.bound is not None
    ]
    verdicts = Counter(one.verdict for _, one in bounded)
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    head = ("benchmark", "ratio", "measured", "to reach", "")
    rows = ((name, *_ratio_row(one)) for name, one in bounded)
    title = f"### Against the {len(bounded)} bounds: {said}"
    return "\n".join([title, "", *_rows(head, rows)]) + "\n"


def machine() -> Mapping[str, object]:
    """Return what the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
    }


def as_json(sections: Iterable[Section]) -> str:
    """One document of a whole run."""
    whole = {"machine": machine(), "sections": [section.as_json() for section in sections]}
    return json.dumps(whole, indent=2) + "\n"


def _processor() -> str:
    with open("/proc/cpuinfo") as info:  # noqa: PTH123 - a kernel file
        names = (line.partition(":")[2].strip() for line in info if line.startswith("model name"))
        return next(names, platform.machine())


def _measurement_row(one: Measurement) -> tuple[str, ...]:
    if not one.samples:
        return (one.who, f"absent: {one.absent}", "", "", "")
    low, high = min(one.samples), max(one.samples)
    return (
        one.who,
        f"{_number(statistics.median(one.samples))} {one.unit}",
        _number(low),
        _number(high),
        str(len(one.samples)),
    )


def _ratio_row(one: Ratio) -> tuple[str, ...]:
    value = "absent" if one.value is None else f"{_number(one.value)} {_TIMES}"
    if one.bound is None:
        return (one.text, value, "", "")
    sign = "at least" if one.better == "higher" else "at most"
    return (one.text, value, f"{sign} {one.bound:g} {_TIMES}", one.verdict)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
