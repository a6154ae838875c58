"""What helps those who work on the project: the fast check, hooks, updates, issue forms."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.template import ROOT


def test_hooks_are_the_projects_own_tools_and_fetch_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venvs/test/bin/")


def test_updates_are_proposed_for_what_scripts_lock_does_not_resolve() -> None:
    config = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    assert [update["package-ecosystem"] for update in config["updates"]] == ["github-actions"]


def test_issue_forms_have_a_name_a_description_and_questions() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert form["name"]
            assert form["description"]
            assert all(
                part["type"] == "markdown" or "label" in part["attributes"] for part in form["body"]
            )


@pytest.mark.parametrize(
    ("changed", "selected"),
    [
        ("proxy/relay.py", "tests/proxy"),
        ("proxy/cli.py", "tests/proxy/test_cli.py"),
        ("tests/proxy/test_cli.py", "tests/proxy/test_cli.py"),
        ("tests/proxy/peers.py", "tests/proxy"),
        ("docs/operations.md", "tests/deploy tests/docs"),
        ("deploy/kubernetes/job.yaml", "tests/deploy tests/test_packaging.py"),
        ("LICENSE", ""),
    ],
)
def test_the_fast_check_runs_the_tests_of_what_changed(
    tmp_path: Path, changed: str, selected: str
) -> None:
    place = tmp_path / "checkout"
    for name in ("scripts/check", "tests/proxy/test_cli.py", "tests/docs/test_pages.py"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    (place / "tests/deploy").mkdir()
    (place / "tests/test_packaging.py").touch()
    for tool in ("ruff", "mypy", "pytest"):
        (tmp_path / tool).write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        (tmp_path / tool).chmod(0o755)
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *command], cwd=place, check=True)
    (place / changed).parent.mkdir(parents=True, exist_ok=True)
    (place / changed).write_text("changed\n")
    result = subprocess.run(
        [place / "scripts/check", "HEAD"],
        env={"PATH": f"{tmp_path}:{os.defpath}", "VIRTUAL_ENV": "active"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    *before, last = result.stdout.splitlines()
    assert [line.split()[0] for line in before] == ["ruff", "ruff", "mypy"]
    if selected:
        assert last.endswith(f" loadgroup {selected}")
    else:
        assert last == "Nothing changed that tests read."
