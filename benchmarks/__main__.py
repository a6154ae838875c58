"""`python -m benchmarks [NAME...]`: runs the benchmarks and prints their tables.

The results are also written as JSON: to benchmarks.json, or where --json says.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Final

from benchmarks.report import Section, as_json, summary

# name -> module; each has `run(rounds: int) -> Section`.
BENCHMARKS: Final = {
    "verify-warm": "benchmarks.verify_warm",
    "verify-cold": "benchmarks.verify_cold",
    "cli-help": "benchmarks.cli_help",
    "cli-encrypt": "benchmarks.cli_encrypt",
    "cli-decrypt": "benchmarks.cli_decrypt",
    "relay-streams": "benchmarks.relay_streams",
    "relay-messages": "benchmarks.relay_messages",
    "enclave-requests": "benchmarks.enclave_requests",
    "enclave-memory": "benchmarks.enclave_memory",
}


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="results' file")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    sections: list[Section] = []
    for name in options.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        sections.append(importlib.import_module(BENCHMARKS[name]).run(options.rounds))
        print(sections[-1].table(), flush=True)
    print(summary(sections), flush=True)
    options.json.write_text(as_json(sections))


if __name__ == "__main__":
    main()
