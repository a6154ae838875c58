"""Each benchmark runs at its smallest size. What it measures is not looked at."""

import importlib
import json

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import Better, Measurement, Ratio, Section, as_json, ratio_of, summary
from benchmarks.rounds import Contestant, take
from foobar_instance.cli import cli

OURS = Measurement("ours", "1/s", (1.0, 3.0, 2.0))
PEER = Measurement("peer", "1/s", (4.0, 4.0, 4.0))
ABSENT = Measurement("other", "1/s", absent="not installed")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name: str) -> None:
    if name == "messages" and all(
        "--lines" not in one.opts for one in cli.commands["encrypt"].params
    ):
        pytest.skip("encrypt takes no --lines")
    section = importlib.import_module(f"benchmarks.{name}").run(1, small=True)
    assert section.name == name
    assert all(one.samples or one.absent for one in section.measurements)
    ours = [one for one in section.measurements if not one.absent]
    assert len(ours) >= 3
    assert all(value > 0 for one in ours for value in one.samples)


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    slow_moment = Measurement("peer", "1/s", (1.0, 1.0, 2.0))
    assert ratio_of(OURS, PEER).value == 0.5
    assert ratio_of(OURS, slow_moment).value == 1.0
    assert ratio_of(OURS, ABSENT).value is None


@pytest.mark.parametrize(
    ("value", "bound", "better", "verdict"),
    [
        (2.0, 2.0, "higher", "reached"),
        (1.9, 2.0, "higher", "missed"),
        (1.2, 1.1, "lower", "missed"),
        (1.0, None, "higher", ""),
        (None, 1.0, "higher", "absent"),
    ],
)
def test_a_verdict(value: float | None, bound: float | None, better: Better, verdict: str) -> None:
    assert Ratio("a / b", value, bound, better).verdict == verdict


def test_a_section_as_table_summary_and_json() -> None:
    section = Section("name", "What is done.", (OURS, ABSENT), (ratio_of(OURS, PEER, bound=1),))
    assert "| ours | 2 1/s | 1 | 3 | 3 |" in section.table()
    assert "| other | absent: not installed |  |  |  |" in section.table()
    assert summary([section]).startswith("### Against the 1 bounds: 1 missed\n")
    assert json.loads(as_json([section]))["sections"][0]["measurements"][0]["median"] == 2


def test_contestants_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def contestant(who: str) -> Contestant:
        def sample() -> float:
            turns.append(who)
            return float(len(turns))

        return Contestant(who, sample)

    measured = take([contestant("a"), contestant("b")], rounds=2, unit="s")
    assert turns == ["a", "b"] * 3
    assert measured["a"].samples == (3.0, 5.0)
