"""Lock files hold every package to its hash, and the licence list names the enclave's packages."""

import re
from pathlib import Path

import pytest

from tests.deploy.template import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("**/*.txt"))


def pins(lock: Path) -> dict[str, int]:
    """Each `name==version` of a lock file, with how many hashes it has."""
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    return {
        entry.split()[0]: len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)) for entry in entries
    }


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.name for lock in LOCKS])
def test_every_package_has_one_version_and_hashes(lock: Path) -> None:
    found = pins(lock)
    assert found
    for pin, hashes in found.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[a-z0-9.]+", pin), pin
        assert hashes, pin


def test_lock_resolves_each_lock_file_anew() -> None:
    names = re.findall(r"^compile ([\w/]+) ", (ROOT / "scripts/lock").read_text(), re.MULTILINE)
    locks = {str(lock.relative_to(REQUIREMENTS).with_suffix("")) for lock in LOCKS}
    assert set(names) == locks


def test_the_licence_list_is_of_the_enclaves_packages() -> None:
    page = (ROOT / "docs/supply-chain.md").read_text()
    listed = re.findall(r"^\| ([a-z0-9-]+) (\d[a-z0-9.]*).* \| (.+) \|$", page, re.MULTILINE)
    assert {f"{name}=={version}" for name, version, _ in listed} == set(
        pins(ROOT / "requirements/enclave.txt")
    )
    assert all(licence.strip() for _, _, licence in listed)


def test_the_bill_of_materials_is_of_what_the_image_installs() -> None:
    script = (ROOT / "scripts/sbom").read_text()
    assert 'install "$work/enclave/bin/python" requirements/enclave.txt\n' in script
    assert "requirements/enclave.txt" in (ROOT / "Dockerfile.enclave").read_text()
