from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

import foobar_enclave
import foobar_shared
from emulator.identity import Instance
from emulator.image_measurements import instance_pcrs, measure_enclave

ZERO = bytes(48)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The enclave's source in a folder of its own, measured in place of the installed one."""
    for package in (foobar_enclave, foobar_shared):
        source = Path(package.__path__[0])
        shutil.copytree(source, tmp_path / source.name)
        monkeypatch.setattr(package, "__path__", [str(tmp_path / source.name)])
    return tmp_path


def test_measurements_are_the_same_for_the_same_source(copied: Path) -> None:
    here = measure_enclave()
    assert here == measure_enclave()
    assert len({here.pcr0, here.pcr1, here.pcr2, ZERO}) == 4
    (copied / "foobar_enclave" / "__pycache__").mkdir(exist_ok=True)
    (copied / "foobar_enclave" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    assert measure_enclave() == here


def test_measurements_change_with_the_application(copied: Path) -> None:
    before = measure_enclave()
    with (copied / "foobar_enclave" / "__init__.py").open("a") as file:
        file.write("#")
    after = measure_enclave()
    assert (after.pcr0 != before.pcr0, after.pcr1 == before.pcr1, after.pcr2 != before.pcr2) == (
        True,
        True,
        True,
    )


def test_measurements_change_with_what_it_rests_on(copied: Path) -> None:
    before = measure_enclave()
    (copied / "foobar_shared" / "new.py").write_text("")
    after = measure_enclave()
    assert (after.pcr0 != before.pcr0, after.pcr1 != before.pcr1, after.pcr2 == before.pcr2) == (
        True,
        True,
        True,
    )


def test_a_name_and_a_content_cannot_stand_for_each_other(copied: Path) -> None:
    (copied / "foobar_enclave" / "xa").write_text("b")
    before = measure_enclave()
    (copied / "foobar_enclave" / "xa").unlink()
    (copied / "foobar_enclave" / "x").write_text("ab")
    assert measure_enclave() != before


def test_role_and_instance_are_measured_as_aws_does() -> None:
    arn = b"arn:aws:iam::123456789012:role/aws-nitro-enclave-foobar-iam-role"
    assert instance_pcrs(Instance()) == {
        3: hashlib.sha384(ZERO + arn).digest(),
        4: hashlib.sha384(ZERO + b"i-0123456789abcdef0").digest(),
    }
