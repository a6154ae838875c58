from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

import foobar_enclave
import foobar_shared
from emulator.identity import Instance
from emulator.image_measurements import ImageMeasurements, instance_pcrs, measure_enclave

ZERO = bytes(48)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The enclave's source in a directory of its own, measured in place of the installed one."""
    for package in (foobar_enclave, foobar_shared):
        source = Path(package.__path__[0])
        shutil.copytree(source, tmp_path / source.name)
        monkeypatch.setattr(package, "__path__", [str(tmp_path / source.name)])
    return tmp_path


def changed(before: ImageMeasurements) -> tuple[bool, bool, bool]:
    now = measure_enclave()
    return (now.pcr0 != before.pcr0, now.pcr1 != before.pcr1, now.pcr2 != before.pcr2)


def test_measurements_change_with_what_they_cover(copied: Path) -> None:
    image = measure_enclave()
    assert len({image.pcr0, image.pcr1, image.pcr2, ZERO}) == 4
    (copied / "foobar_enclave" / "__pycache__").mkdir(exist_ok=True)
    (copied / "foobar_enclave" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    assert changed(image) == (False, False, False)
    (copied / "foobar_enclave" / "xa").write_text("b")
    assert changed(image) == (True, False, True)
    image = measure_enclave()
    (copied / "foobar_shared" / "new.py").write_text("")
    assert changed(image) == (True, True, False)
    image = measure_enclave()
    (copied / "foobar_enclave" / "xa").unlink()
    (copied / "foobar_enclave" / "x").write_text("ab")
    assert changed(image) == (True, False, True), "a name cannot stand for content"


def test_role_and_instance_are_measured_as_aws_does() -> None:
    arn = b"arn:aws:iam::123456789012:role/aws-nitro-enclave-foobar-iam-role"
    assert instance_pcrs(Instance()) == {
        3: hashlib.sha384(ZERO + arn).digest(),
        4: hashlib.sha384(ZERO + b"i-0123456789abcdef0").digest(),
    }
