"""The driver: what it asks of a command, and what it makes of the answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from corpus.generate import FILE
from corpus.run import accepts, main

CORPUS = json.loads(FILE.read_text())
CASES = {case["id"]: case for case in CORPUS["cases"]}
INVALID = sum(case["verdict"] == "invalid" for case in CASES.values())
VALID = sum(case["verdict"] == "valid" for case in CASES.values())


@pytest.mark.parametrize(
    ("command", "wrong_valid", "wrong_invalid"),
    [("echo accept", 0, INVALID), ("echo reject", VALID, 0), ("exit 3", VALID, 0)],
)
def test_wrong_verdicts_are_counted(
    capsys: pytest.CaptureFixture[str], command: str, wrong_valid: int, wrong_invalid: int
) -> None:
    assert main(["--", "sh", "-c", command]) == 1
    total = capsys.readouterr().out.splitlines()[-1]
    assert total == f"| all | {VALID} | {wrong_valid} | {INVALID} | {wrong_invalid} |"


def test_what_a_verifier_does_not_compare_can_be_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["--pcrs", "0,1", "--without-nonce", "--list", "--", "sh", "-c", "echo accept"]) == 1
    )
    out = capsys.readouterr().out
    assert "| nonce |" not in out
    assert "invalid measurements/wrong-pcr1:" in out
    assert "measurements/wrong-pcr2:" not in out


@pytest.mark.parametrize(
    "case", ["measurements/right-all", "measurements/wrong-pcr8", "nonce/right", "nonce/wrong-bit",
             "chain-validity/old", "chain-validity/old-today"],
)  # fmt: skip
def test_our_adapter_gets_all_that_a_case_gives(tmp_path: Path, case: str) -> None:
    root = tmp_path / "root.pem"
    root.write_text(CORPUS["root"])
    command = [sys.executable, "-m", "corpus.adapters.foobar"]
    assert accepts(command, root, CASES[case]) is (CASES[case]["verdict"] == "valid")
