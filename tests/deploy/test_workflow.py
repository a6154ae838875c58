"""The CI workflow: every check, on both architectures, with few rights and exact versions."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.template import ROOT, load

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    job = load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["checks"]
    assert isinstance(job, dict)
    return job


def test_runs_every_check_on_both_architectures(checks: dict[str, Any]) -> None:
    assert checks["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert checks["runs-on"] == "${{ matrix.runner }}"
    commands = [step["run"] for step in checks["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert os.access(ROOT / commands[0], os.X_OK)


def test_has_each_python_that_the_project_supports(checks: dict[str, Any]) -> None:
    (versions,) = [s["with"]["python-version"] for s in checks["steps"] if "python" in str(s)]
    classifiers = re.findall(r":: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    assert sorted(versions.split()) == sorted(classifiers)


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])
def test_actions_have_an_exact_version_and_no_standing_rights(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action), action
    assert load(text)["permissions"] == {"contents": "read"}
