"""The project's own files: locks that agree with pyproject.toml, scripts, words that may not be."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from foobar_shared import VERSION

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PEER = "evervault-attestation-bindings"


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", text)[0].lower() for text in requirements}


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_the_distributions() -> None:
    table = project()["project"]
    assert isinstance(table, dict)
    assert table["version"] == VERSION


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_locked_version_has_hashes(lock: Path) -> None:
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pinned(lock)) > 0
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_locks_agree_with_each_other() -> None:
    everything = pinned(ROOT / "requirements/dev.txt")
    for lock in LOCKS:
        further = pinned(lock).keys() - everything.keys()
        # The accelerator is optional, and what benchmarks compare with is no part of the project.
        allowed = {"fast": {"awscrt"}, "bench": {"awscrt", PEER}}
        assert further <= allowed.get(lock.stem, set()), lock.stem
        shared = pinned(lock).items() & everything.items()
        assert len(shared) == len(pinned(lock)) - len(further), lock.stem


def test_the_locks_hold_what_the_project_declares() -> None:
    data = project()
    table = data["project"]
    groups = data["dependency-groups"]
    build = data["build-system"]
    assert isinstance(table, dict)
    assert isinstance(groups, dict)
    assert isinstance(build, dict)
    runtime = names(table["dependencies"]) | names(build["requires"])
    demo = runtime | names(table["optional-dependencies"]["emulator"])
    for lock, wanted in {
        "runtime": runtime,
        "demo": demo,
        "dev": demo | names(groups["dev"]),
    }.items():
        assert wanted <= pinned(ROOT / f"requirements/{lock}.txt").keys()


def test_nothing_of_the_emulator_or_the_command_line_is_in_the_enclave() -> None:
    unwanted = {"click", "pycose", "ecdsa", "moto", "flask", "pip", "hatchling"}
    assert not unwanted & pinned(ROOT / "requirements/enclave.txt").keys()


@pytest.mark.parametrize(
    "script", ["demo.sh", "test.sh", ".ci/run", "scripts/venv", "scripts/lock"]
)
def test_scripts_can_be_started_and_parsed(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
