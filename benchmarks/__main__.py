"""`python -m benchmarks [NAME...]`: run the benchmarks and print their tables.

Every sample is also written to benchmarks.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.report import Section, report

# Each module has `run(rounds: int, *, small: bool) -> Section`.
BENCHMARKS: Final = ("verify", "start", "enclave", "relay", "messages")


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--small", action="store_true", help="at the smallest size, as a check")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    sections: list[Section] = []
    for name in options.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        sections.append(module.run(options.rounds, small=options.small))
    samples = json.dumps([asdict(section) for section in sections], indent=2)
    Path("benchmarks.json").write_text(samples + "\n")
    print(report(sections, options.rounds), end="")


if __name__ == "__main__":
    main()
