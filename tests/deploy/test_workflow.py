"""The workflows: every check, on both architectures, with few rights and exact versions."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.template import ROOT, load

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(name: str) -> dict[str, Any]:
    found = load((ROOT / ".github/workflows" / name).read_text())["jobs"]
    assert isinstance(found, dict)
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_runs_every_check_on_both_architectures() -> None:
    job = jobs("ci.yml")["checks"]
    assert job["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert job["runs-on"] == "${{ matrix.runner }}"
    assert commands(job)[-1] == ".ci/run"
    assert "debian:bookworm" in job["container"]["image"]


def test_tests_on_each_python_that_the_project_supports() -> None:
    job = jobs("ci.yml")["pythons"]
    (versions,) = [step["with"]["python-version"] for step in job["steps"] if "setup" in str(step)]
    classifiers = re.findall(r":: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    assert sorted(versions.split()) == sorted(classifiers)
    assert commands(job) == ["./test.sh --all-pythons"]


def test_a_release_gets_each_architectures_measurements_and_the_wheel() -> None:
    release = jobs("release.yml")
    assert release["image"]["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert "scripts/image image" in commands(release["image"])[-1]
    assert commands(release["wheel"]) == ["scripts/wheel wheel"]
    assert commands(release["attach"]) == [
        'gh release upload "$TAG" release/* --repo "$GITHUB_REPOSITORY"'
    ]


def test_what_is_attached_is_attested_before() -> None:
    release = jobs("release.yml")
    assert release["attest"]["needs"] == ["image", "wheel"]
    assert release["attach"]["needs"] == "attest"
    download, attest = release["attest"]["steps"]
    assert download == release["attach"]["steps"][0]
    assert attest["uses"].startswith("actions/attest-build-provenance@")
    assert attest["with"] == {"subject-path": "release/*"}


def test_jobs_with_rights_have_the_least_and_run_nothing_of_the_sources() -> None:
    writers = {
        f"{path.name}:{name}": job
        for path in WORKFLOWS
        for name, job in jobs(path.name).items()
        if "permissions" in job
    }
    assert {name: job["permissions"] for name, job in writers.items()} == {
        "release.yml:attest": {"id-token": "write", "attestations": "write"},
        "release.yml:attach": {"contents": "write"},
    }
    assert "actions/checkout" not in str(writers)


def test_what_the_workflows_run_is_there() -> None:
    named = {
        word
        for path in WORKFLOWS
        for job in jobs(path.name).values()
        for command in commands(job)
        for word in command.split()
        if re.fullmatch(r"(?:\./|scripts/|\.ci/)\S+", word)
    }
    assert {"./test.sh", ".ci/run", "scripts/image", "scripts/wheel", "scripts/audit"} <= named
    for program in named:
        assert os.access(ROOT / program, os.X_OK), program


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])
def test_actions_are_pinned_by_commit_and_jobs_have_no_standing_rights(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (.+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert load(text)["permissions"] == {"contents": "read"}
