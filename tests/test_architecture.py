"""Arrows between the packages point one way, and the enclave imports only what it is allowed."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"foobar_enclave", "foobar_instance", "foobar_shared", "proxy", "emulator"}
ALLOWED = {
    "foobar_shared": set[str](),
    "foobar_enclave": {"foobar_shared"},
    "proxy": {"foobar_shared"},
    "foobar_instance": {"foobar_shared", "proxy"},
    "emulator": OURS,
}
ENCLAVE_LIBRARIES = {"asn1crypto", "boto3", "botocore", "cbor2", "cryptography"}
TYPES_ONLY = {"mypy_boto3_kms"}


def imported(package: str) -> dict[str, set[str]]:
    """Top-level names of the modules that each file of a package imports, at any depth."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names = found.setdefault(str(path.relative_to(ROOT)), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or package).partition(".")[0])
    assert found, package
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_arrows_point_one_way(package: str) -> None:
    for path, names in imported(package).items():
        assert (names & OURS) - {package} <= ALLOWED[package], path


@pytest.mark.parametrize("package", ["foobar_enclave", "foobar_shared"])
def test_what_pcr0_measures_imports_only_its_few_libraries(package: str) -> None:
    for path, names in imported(package).items():
        third_party = names - OURS - set(sys.stdlib_module_names) - TYPES_ONLY
        assert third_party <= ENCLAVE_LIBRARIES, path
