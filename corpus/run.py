"""Run a verifier over the corpus and print a table: `python -m corpus.run -- COMMAND`.

Each case starts `COMMAND DOCUMENT ROOT TIME PCRS NONCE`; README.md says what these are. A verifier
accepts by printing `accept`. Whatever else it does, a crash included, counts as a refusal.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("attestation-documents.json")
TIMEOUT: Final = 60  # seconds for one document
Row = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Run the command over the corpus; return 1 if a verdict is wrong, and 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m corpus.run", description=__doc__)
    parser.add_argument(
        "--pcrs",
        metavar="INDICES",
        help="skip cases that expect PCRs other than these, such as 0,1,2",
    )
    parser.add_argument("--without-nonce", action="store_true", help="skip cases that expect one")
    parser.add_argument("--list", action="store_true", help="print each wrong verdict too")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(arguments)
    compared = set(map(str, range(32)) if options.pcrs is None else options.pcrs.split(","))
    corpus = json.loads(FILE.read_text())
    cases = [
        case
        for case in corpus["cases"]
        if compared.issuperset(case.get("pcrs", ()))
        and not (options.without_nonce and "nonce" in case)
    ]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        root = Path(name, "root.pem")
        root.write_text(corpus["root"])
        run = partial(accepts, options.command, root)
        accepted = dict(zip((case["id"] for case in cases), pool.map(run, cases), strict=True))
    print(table(corpus["rules"], cases, accepted))
    wrong = [case for case in cases if is_wrong(case, accepted=accepted[case["id"]])]
    for case in wrong if options.list else ():
        print(f"{case['verdict']} {case['id']}: {case['comment']}")
    return int(bool(wrong))


def accepts(command: Sequence[str], root: Path, case: Row) -> bool:
    """Return whether the command accepts the case's document."""
    path = root.with_name(case["id"].replace("/", "."))
    path.write_bytes(base64.b64decode(case["document"]))
    pcrs = ",".join(f"{index}={pcr}" for index, pcr in case.get("pcrs", {}).items())
    nonce = base64.b64decode(case.get("nonce", "")).hex()
    try:
        done = subprocess.run(
            [*command, path, root, case["time"], pcrs or "-", nonce or "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip().splitlines()[-1:] == [b"accept"]


def is_wrong(case: Row, *, accepted: bool) -> bool:
    """Return whether the verifier's answer is not the case's verdict."""
    return bool(case["verdict"] == ("invalid" if accepted else "valid"))


def table(rules: Iterable[str], cases: Sequence[Row], accepted: Mapping[str, bool]) -> str:
    """Return the numbers by rule: valid and invalid documents, and how many of each are wrong."""
    lines = [
        "| rule | valid | of these refused | invalid | of these accepted |",
        "|---|--:|--:|--:|--:|",
    ]
    for rule in (*rules, "all"):
        counts = []
        for verdict in ("valid", "invalid"):
            mine = [c for c in cases if rule in {c["rule"], "all"} and c["verdict"] == verdict]
            wrong = [c for c in mine if is_wrong(c, accepted=accepted[c["id"]])]
            counts += [len(mine), len(wrong)]
        if any(counts):
            lines.append(f"| {rule} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
