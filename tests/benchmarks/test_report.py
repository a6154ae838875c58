"""Medians, ratios and verdicts, and taking turns."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import Better, Measurement, Ratio, Section, as_json, ratio_of, summary
from benchmarks.rounds import Contestant, rate, take

OURS = Measurement("ours", "1/s", (1.0, 3.0, 2.0))
PEER = Measurement("peer", "1/s", (4.0, 4.0, 4.0))
ABSENT = Measurement("other", "1/s", absent="not installed")


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    assert ratio_of(OURS, PEER, bound=0.5).value == 0.5
    slow_moment = Measurement("peer", "1/s", (1.0, 1.0, 2.0))
    assert ratio_of(OURS, slow_moment).value == 1.0
    assert ratio_of(OURS, ABSENT).value is None


def test_a_summary_holds_the_bounds_of_all() -> None:
    ratios = (ratio_of(OURS, PEER, bound=0.4), ratio_of(OURS, ABSENT, bound=2))
    sections = [
        Section("one", "", (), (*ratios, ratio_of(OURS, PEER))),
        Section("two", "", (), (ratio_of(OURS, PEER, bound=0.5, better="lower"),)),
    ]
    assert summary(sections).splitlines() == [
        "### Against the 3 bounds: 2 reached, 1 absent",
        "",
        "| benchmark | ratio | measured | to reach |  |",
        "| --- | --- | --- | --- | --- |",
        "| one | ours / peer | 0.5 × | at least 0.4 × | reached |",  # noqa: RUF001
        "| one | ours / other | absent | at least 2 × | absent |",  # noqa: RUF001
        "| two | ours / peer | 0.5 × | at most 0.5 × | reached |",  # noqa: RUF001
    ]


@pytest.mark.parametrize(
    ("value", "bound", "better", "verdict"),
    [
        (2.0, 2.0, "higher", "reached"),
        (1.9, 2.0, "higher", "missed"),
        (1.0, 1.1, "lower", "reached"),
        (1.2, 1.1, "lower", "missed"),
        (1.0, None, "higher", ""),
        (None, 1.0, "higher", "absent"),
    ],
)
def test_a_verdict(value: float | None, bound: float | None, better: Better, verdict: str) -> None:
    assert Ratio("a / b", value, bound, better).verdict == verdict


def test_a_section_as_table_and_as_json() -> None:
    section = Section("name", "What is done.", (OURS, ABSENT), (ratio_of(OURS, PEER, bound=1),))
    table = section.table().splitlines()
    assert "| ours | 2 1/s | 1 | 3 | 3 |" in table
    assert "| other | absent: not installed |  |  |  |" in table
    assert any("0.5" in line and "at least 1" in line and "missed" in line for line in table)
    whole = json.loads(as_json([section]))
    assert whole["machine"]["cores"] >= 1
    ours, other = whole["sections"][0]["measurements"]
    assert ours["samples"] == [1.0, 3.0, 2.0]
    assert other["absent"] == "not installed"


def test_contestants_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def contestant(who: str) -> Contestant:
        def sample() -> float:
            turns.append(who)
            return float(len(turns))

        return Contestant(who, sample)

    measured = take(
        [contestant("a"), Contestant("absent", absent="no"), contestant("b")], rounds=2, unit="s"
    )
    assert turns == ["a", "b"] * 3
    assert measured["a"].samples == (3.0, 5.0)
    assert measured["absent"].samples == ()


def test_a_rate_counts_batches_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 1.0, 2.0])
    monkeypatch.setattr("benchmarks.rounds.time.perf_counter", lambda: next(clock))
    assert rate(lambda: None, seconds=2.0, batch=10) == 10.0
