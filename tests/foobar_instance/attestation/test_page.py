"""The page on verification says what the library does."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.forge import RULES

PAGE = (Path(__file__).parents[3] / "docs" / "verification.md").read_text()


def test_every_rule_is_on_the_page_as_it_is() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \|", PAGE, re.MULTILINE)
    assert rows == [(rule.name, rule.demand, rule.source) for rule in RULES.values()]


def test_every_item_of_aws_s_process_has_a_rule_that_is_its_source() -> None:
    rows = re.findall(r"^\| (\d+) \([\d.]+\) \| .+? \| (.+?) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    for number, cell in rows:
        named = set(re.findall(r"`([a-z-]+)`", cell))
        sources = {
            rule.name for rule in RULES.values() if number in re.findall(r"\d+", rule.source)
        }
        assert named & sources, number
