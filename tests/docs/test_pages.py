"""The documentation: what it points to is there, and the commands it shows exist."""

import re
from pathlib import Path

import pytest

from foobar_instance.cli import cli
from tests.docs.pages import NAMES, PAGES, ROOT, unfenced


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_anchors_are_headings(page: Path) -> None:
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_named_tests_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (path, name)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_lines_have_at_most_100_columns(page: Path) -> None:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        is_link = re.fullmatch(r"\[[^]]+\]: \S+", line)
        assert len(line) <= 100 or is_link, f"{page.name}:{number}"


def test_every_row_of_the_threat_model_has_a_test() -> None:
    rows = re.findall(
        r"^\| (\d+|[A-Z]) \|", (ROOT / "docs/threat-model.md").read_text(), re.MULTILINE
    )
    assert {str(number) for number in range(1, 20)} <= set(rows)
    marks = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    marked = {
        row
        for rows in re.findall(r"^@pytest\.mark\.threat\((.*)\)$", marks, re.MULTILINE)
        for row in re.findall(r'"(\w+)"', rows)
    }
    assert set(rows) == marked


def shown_commands() -> set[tuple[str, str]]:
    """Each `foobar-instance COMMAND` in the text, with an option; blocks are run."""
    shown = set()
    for page in PAGES:
        for line in unfenced(page.read_text()).splitlines():
            for command, rest in re.findall(r"foobar-instance ([a-z][a-z-]*)([^|`]*)", line):
                options = re.findall(r"(?<!\S)(--[A-Za-z0-9-]+)", rest)
                shown |= {(command, option) for option in options or [""]}
    return shown


def test_every_shown_command_and_option_exists() -> None:
    commands = {
        name: {option for param in command.params for option in param.opts}
        for name, command in cli.commands.items()
    }
    shown = shown_commands()
    assert ("encrypt", "--plaintext") in shown
    for command, option in shown:
        assert command in commands, command
        assert not option or option in commands[command] | {"--help"}, (command, option)
