import hashlib
from pathlib import Path

import pytest

from foobar_instance.eif import measure_image
from tests.vm import eif
from tests.vm.errors import LabError

RAMDISKS = (b"bootstrap   ", b"application ", b"more")


def register(*parts: bytes) -> bytes:
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).digest()


@pytest.fixture
def image(tmp_path: Path) -> eif.Image:
    (tmp_path / "kernel").write_bytes(b"kernel")
    return eif.build(
        "machine",
        tmp_path,
        kernel=tmp_path / "kernel",
        command_line="console=ttyS0",
        ramdisks=RAMDISKS,
    )


def test_the_machine_starts_from_what_is_measured(image: eif.Image) -> None:
    assert image.kernel.read_bytes() == b"kernel"
    assert image.command_line == "console=ttyS0"
    assert image.initrd.read_bytes() == b"".join(RAMDISKS)
    whole = register(b"kernel", b"console=ttyS0", *RAMDISKS)
    first = register(b"kernel", b"console=ttyS0", RAMDISKS[0])
    assert image.pcrs == {0: whole, 1: first, 2: register(*RAMDISKS[1:])}


def test_the_file_is_measured_alike(image: eif.Image) -> None:
    measured = measure_image(image.eif)
    assert (measured.pcr0, measured.pcr1, measured.pcr2) == tuple(image.pcrs.values())
    assert measured.pcr8 is None


def test_ramdisks_are_found_by_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="multiple of 4"):
        eif.build(
            "machine", tmp_path, kernel=tmp_path / "k", command_line="", ramdisks=[b"12345", b""]
        )
