"""The pages' fenced blocks, and a shell that runs the blocks of a page in order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "corpus/*.md", "examples/*/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]
LANGUAGES: Final = ("console", "sh", "python", "json", "text", "mermaid")
HINT: Final = (
    "fence it with ``` and a language: console (`$ command` and what it prints, ... for what "
    "varies), sh (commands that must succeed), python, json, text or mermaid (not run)"
)
_DEMO: Final = "$ ./demo.sh\n"
_MARK: Final = "\x1e"
_SECONDS: Final = 100
_FENCE: Final = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and its text without indentation."""

    line: int
    language: str
    text: str

    def session(self) -> Iterator[tuple[str, str]]:
        """Yield each command of a session with what it prints; the demo is shown in short."""
        if self.text.startswith(_DEMO):
            yield _DEMO[2:], "...\n" + self.text.removeprefix(_DEMO).replace("\n", "\n...\n")
            return
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command = re.match(r".*\n(?:> .*\n)*", part)
            assert command is not None
            yield re.sub(r"^> ", "", command[0], flags=re.MULTILINE), part[command.end() :]


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in _FENCE.finditer(text):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines(keepends=True)]
        yield Block(text.count("\n", 0, found.start()) + 1, found[2], "".join(lines))


def unfenced(text: str) -> str:
    """Return a page with each fenced block left empty, its lines kept."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def is_shown(shown: str, output: str) -> bool:
    """Return whether the output is what a page shows, where `...` stands for anything."""
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*")
        for line in shown.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, output) is not None


@dataclass(frozen=True)
class Step:
    """What a page's shell runs at once, and what it must print; None is anything."""

    line: int
    script: str
    shown: str | None = None


def page_steps(text: str, prelude: str, printed: str) -> Iterator[Step]:
    """Yield what a page runs. Python runs after the prelude, as a test where it defines one."""
    for block in blocks(text):
        if block.language == "sh":
            yield Step(block.line, block.text)
        elif block.language == "console":
            session = [*block.session(), ("", "")]
            for (command, shown), (following, _) in pairwise(session):
                may_fail = following == "echo $?\n"
                script = f"{{ {command}}} && code=0 || code=$?\n" if may_fail else command
                yield Step(block.line, script.replace("echo $?\n", "echo $code\n"), shown)
        elif block.language == "python":
            is_test = "\ndef test_" in block.text
            runner = "python -m pytest -q -p no:cacheprovider" if is_test else "python"
            file = f"test_page_{block.line}.py"
            script = f"cat >{file} <<'END_'\n{prelude}{block.text}END_\n{runner} {file}\n"
            yield Step(block.line, script, None if is_test else printed)


def run(
    steps: Sequence[Step], folder: Path, environment: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Run steps in one shell until one fails; return the exit code, and what each printed."""
    script = "set -eE -o pipefail\ntrap 'echo \"exit code $?: $BASH_COMMAND\" >&2' ERR\n"
    script += "".join(f"printf '{_MARK}'\n{step.script}" for step in steps)
    with (folder / ".output").open("w+") as output:
        process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            code = 124
        with contextlib.suppress(ProcessLookupError):  # what the page left running
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        return code, output.read().split(_MARK)[1:]


def parse_json(text: str) -> None:
    """Parse a block of JSON, which may hold several values."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        text = text[decoder.raw_decode(text)[1] :]
