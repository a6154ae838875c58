"""Builds the two-machine lab, and shows on it what its scenario says.

    python -m tests.vm [--keep FOLDER] [--cache FOLDER] [pytest's arguments]

Exit code: 0 where all is well; 77 where this machine lacks what the lab needs, which is said;
1 otherwise, and then the folder with the machines' consoles and complaints is named.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.vm import accelerators, lab, preparation
from tests.vm.errors import LabError, LabUnavailableError
from tests.vm.preparation import PROJECT, UNAVAILABLE

SCENARIO: Final = PROJECT / "tests/vm/scenario"
# Not /tmp, which may be in memory: all together takes more than a gigabyte.
BELOW: Final = Path("/var/tmp")  # noqa: S108 - a folder of its own is made there
RUN: Final = "run"  # of a lab's folder: what the machines leave
LOGS: Final = (".console", ".qemu", ".agent", ".log")
KEEP_MAX: Final = 80  # bytes of a path, as those of sockets are bounded (unix(7))


class Report:
    """What is printed, with the time since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line on standard output."""
        print(f"== {time.monotonic() - self._began:5.1f} s: {text}", flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, run and clear up."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the lab and all logs in this new folder"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep Debian's packages there between runs"
    )
    options, pytest_arguments = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, _interrupted)
    report = Report()
    folder = _folder(options.keep, parser)
    code = 1
    try:
        code = _run(folder, options.cache or folder / "cache", pytest_arguments, report)
    except LabUnavailableError as error:
        print(f"python -m tests.vm: cannot run here: {error}", file=sys.stderr)  # noqa: T201
        code = UNAVAILABLE
    except KeyboardInterrupt:
        print("python -m tests.vm: interrupted", file=sys.stderr)  # noqa: T201
    except LabError as error:
        print(f"python -m tests.vm: {error}", file=sys.stderr)  # noqa: T201
    finally:
        _leave(folder, report, keep=options.keep is not None, failed=code not in {0, UNAVAILABLE})
    if code == 0:
        report.say("all is well")
    return code


def _run(folder: Path, cache: Path, arguments: Sequence[str], report: Report) -> int:
    built, accelerator = preparation.prepare(folder, cache=cache, say=report.say)
    lab.save(built, folder)
    (folder / RUN).mkdir()
    report.say("the scenario begins")
    os.environ |= {lab.VARIABLE: f"{folder}", accelerators.VARIABLE: accelerator}
    shown = ["--verbose", "--durations=10", "-p", "no:cacheprovider"]
    code = pytest.main([*shown, *arguments, f"{SCENARIO}"])
    report.say(f"the scenario has ended with {code}")
    return 0 if code == 0 else 1


def _folder(keep: Path | None, parser: argparse.ArgumentParser) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="lab.", dir=BELOW))
    folder = keep.resolve()
    if len(os.fsencode(folder)) > KEEP_MAX:
        parser.error(f"{folder} is too long for the sockets in it: {KEEP_MAX} bytes at most")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        parser.error(f"{folder} cannot be made: {error.strerror}")
    return folder


def _leave(folder: Path, report: Report, *, keep: bool, failed: bool) -> None:
    """Keeps what was asked for, or where something failed the logs, and nothing else."""
    if keep:
        report.say(f"the lab is kept in {folder}")
    elif failed:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name != RUN:
                shutil.rmtree(path)
            elif path.is_file() and path.suffix not in LOGS:
                path.unlink()
        report.say(f"the machines' logs are in {folder}")
    else:
        shutil.rmtree(folder)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
