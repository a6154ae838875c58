"""Each benchmark runs at its smallest size. What it measures is not looked at."""

import importlib

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import Measurement, Ratio, Section, ratio_of, report, take

OURS = Measurement("ours", "1/s", (1.0, 3.0, 2.0))
PEER = Measurement("peer", "1/s", (4.0, 4.0, 4.0))
ABSENT = Measurement("other", "1/s", absent="it is not installed. " * 9)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name: str) -> None:
    section = importlib.import_module(f"benchmarks.{name}").run(1, small=True)
    assert section.name == name
    assert all(one.samples or one.absent for one in section.measurements)
    ours = [one for one in section.measurements if not one.absent]
    assert len(ours) >= 3
    assert all(value > 0 for one in ours for value in one.samples)
    assert all(len(line) <= 100 for line in report([section], 1).splitlines())


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    slow_moment = Measurement("peer", "1/s", (1.0, 1.0, 2.0))
    assert ratio_of(OURS, PEER, 1).value == 0.5
    assert ratio_of(OURS, slow_moment, 1).value == 1.0
    assert ratio_of(OURS, ABSENT, 1).value is None


@pytest.mark.parametrize(
    ("value", "bound", "at_most", "reached"),
    [
        (2.0, 2.0, False, True),
        (1.9, 2.0, False, False),
        (1.1, 1.1, True, True),
        (1.2, 1.1, True, False),
        (None, 1.0, False, None),
    ],
)
def test_a_bound(value: float | None, bound: float, at_most: bool, reached: bool | None) -> None:
    assert Ratio("a / b", value, bound, at_most).reached is reached


def test_a_report_has_ratios_medians_and_why_a_peer_is_absent() -> None:
    ratios = (ratio_of(OURS, PEER, 1), ratio_of(OURS, ABSENT, 1.5, at_most=True))
    text = report([Section("name", "What is done.", (OURS, ABSENT), ratios)], 3)
    assert "| name: ours / peer | 0.5 | at least 1 | no |" in text
    assert "| name: ours / other | absent | at most 1.5 |  |" in text
    assert "| ours | 2 1/s |\n\nAbsent: other: it is not installed." in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_contestants_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def turn(who: str) -> float:
        turns.append(who)
        return float(len(turns))

    measured = take(
        {"a": lambda: turn("a"), "b": lambda: turn("b"), "c": "why"}, rounds=2, unit="s"
    )
    assert turns == ["a", "b"] * 3
    assert measured["a"].samples == (3.0, 5.0)
    assert measured["c"].absent == "why"
