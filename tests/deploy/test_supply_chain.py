"""Lock files hold every package to its hash; the enclave's have the licences that are listed."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests.deploy.template import ROOT

REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("**/*.txt"))
ROW = re.compile(r"^\| ([a-z0-9-]+) (\d\S*)(?: \(.*\))? \| (.+) \|$", re.MULTILINE)
# What a licence is called in a package's metadata -> its SPDX identifier.
SPELLINGS = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}
PERMISSIVE = {"Apache-2.0", "BSD-3-Clause", "MIT", "MIT-0"}


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


def documented() -> dict[str, str]:
    """`name==version` of each package in the list of licences, with its licence."""
    rows = ROW.findall((ROOT / "docs/trust.md").read_text())
    return {f"{name}=={version}": licence for name, version, licence in rows}


def declared(package: str) -> set[str]:
    """The licences that the installed package says it is under, by SPDX identifier."""
    fields = metadata(package)
    classifiers = fields.get_all("Classifier") or []
    named = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
    texts = fields.get_all("License-Expression") or fields.get_all("License") or []
    names = named or [name for text in texts for name in re.split(r" (?:OR|AND) ", text)]
    return {SPELLINGS.get(name, name) for name in names}


def test_the_licence_list_is_of_the_enclaves_packages() -> None:
    assert set(documented()) == set(pins(REQUIREMENTS / "enclave.txt"))


@pytest.mark.parametrize("pin", sorted(pins(REQUIREMENTS / "enclave.txt")))
def test_each_licence_is_the_declared_one_and_permissive(pin: str) -> None:
    listed = re.findall(r"[A-Z][A-Za-z]*(?:-[0-9][\w.-]*)?", documented()[pin])
    assert set(listed) == declared(pin.partition("==")[0])
    assert set(listed) <= PERMISSIVE


def test_the_bill_of_materials_is_of_what_the_image_installs() -> None:
    script = (ROOT / "scripts/sbom").read_text()
    assert 'install "$work/enclave/bin/python" requirements/enclave.txt\n' in script
    assert "requirements/enclave.txt" in (ROOT / "Dockerfile.enclave").read_text()
