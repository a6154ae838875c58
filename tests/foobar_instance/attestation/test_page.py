"""The page on verification and the library's own help say what the library does."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from foobar_instance import attestation
from tests.support.forge import PCRS, RULES, document, root
from tests.support.issued import NOW

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


def test_the_example_in_the_library_s_help_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"(?<=\n\n)    from .+?(?=\n\n\S)", str(attestation.__doc__), re.DOTALL)
    example = textwrap.dedent(example).replace("document,", "document, root=root,", 1)
    example = example.replace("datetime.now(UTC)", "now")
    measured = {"Measurements": {f"PCR{index}": value.hex() for index, value in PCRS.items()}}
    (tmp_path / "foobar-enclave.measurements.json").write_text(json.dumps(measured))
    monkeypatch.chdir(tmp_path)
    signed = document(user_data=b"hello", nonce=b"n")
    for nonce, words in ((b"n", "b'hello'\n"), (b"m", "it answers some other request\n")):
        given = {"document": signed, "nonce": nonce, "root": root(), "now": NOW}
        exec(compile(example, "help", "exec"), given)  # noqa: S102 - the library's own help
        assert capsys.readouterr().out.endswith(words)
