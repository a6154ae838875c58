"""The project's own files: locks that agree with pyproject.toml, scripts, words that may not be."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
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
@pytest.mark.threat("19")
def test_every_locked_version_has_hashes(lock: Path) -> None:
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pinned(lock)) > 0
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_locks_agree_with_each_other() -> None:
    everything = pinned(ROOT / "requirements/dev.txt")
    for lock in LOCKS:
        further = pinned(lock).keys() - everything.keys()
        # What benchmarks compare with is no part of the project.
        assert further <= ({PEER} if lock.stem == "bench" else set()), lock.stem
        shared = pinned(lock).items() & everything.items()
        assert len(shared) == len(pinned(lock)) - len(further), lock.stem


def test_the_enclave_holds_its_libraries_and_what_they_need_and_nothing_else() -> None:
    needed = {"asn1crypto", "boto3", "cbor2", "cryptography"}
    needed |= {"botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"}  # boto3's
    needed |= {"cffi", "pycparser", "typing-extensions"}  # cryptography's
    assert pinned(ROOT / "requirements/enclave.txt").keys() <= needed


def test_the_locks_hold_what_the_project_declares() -> None:
    data = project()
    table = data["project"]
    groups = data["dependency-groups"]
    build = data["build-system"]
    assert isinstance(table, dict)
    assert isinstance(groups, dict)
    assert isinstance(build, dict)
    runtime = names(table["dependencies"]) | names(build["requires"])
    assert runtime <= pinned(ROOT / "requirements/runtime.txt").keys()
    assert runtime | names(groups["dev"]) <= pinned(ROOT / "requirements/dev.txt").keys()


def test_the_wheel_holds_the_programs_and_not_the_emulator(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {name for name in tops if not name.endswith(".dist-info")}
    assert packages == {"foobar_enclave", "foobar_instance", "foobar_shared", "proxy"}


def pythons(path: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/pythons"],
        env={"PATH": path, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_newer_than_any_known_one_is_used(tmp_path: Path) -> None:
    python = tmp_path / "python3.99"
    python.write_text("#!/bin/sh\necho 3.99\n")
    python.chmod(0o755)
    assert f"3.99 {python}" in pythons(f"{tmp_path}:{os.defpath}", tmp_path).stdout.splitlines()


def test_a_machine_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    for tool in ("ls", "tr"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    found = pythons(str(tmp_path), tmp_path)
    assert found.returncode == 1
    assert "apt-get install python3" in found.stderr


@pytest.mark.parametrize(
    "script",
    [
        "demo.sh", "test.sh", "test-vm.sh", ".ci/run", "tests/fresh-machine",
        "scripts/audit", "scripts/check", "scripts/image", "scripts/lock", "scripts/pythons",
        "scripts/rebuild", "scripts/release", "scripts/sbom", "scripts/venv", "scripts/wheel",
        "deploy/kubernetes/run-share",
    ],
)  # fmt: skip
def test_scripts_can_be_started_and_parsed(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
