from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vm import authorities
from tests.vm.eif import Image
from tests.vm.errors import LabError
from tests.vm.lab import Lab, load, save
from tests.vm.packages import Software


def test_a_lab_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    software = Software(
        qemu=("/q/ld.so", "qemu", "-L", "/q/a b"),
        kernel=Path("/k"),
        modules=(Path("/m/vsock.ko"), Path("/m/nsm.ko")),
        busybox=Path("/b"),
        guest=Path("/g"),
    )
    image = Image(
        kernel=Path("/k"),
        command_line="console=ttyS0 quiet",
        initrd=Path("/i"),
        eif=Path("/e"),
        pcrs={index: bytes([index]) * 48 for index in range(3)},
    )
    made = authorities.create(datetime.now(UTC))
    save(Lab(software=software, authorities=made, images={"enclave": image}), tmp_path)
    loaded = load(tmp_path)
    assert loaded.software == software
    assert loaded.images == {"enclave": image}
    assert loaded.authorities.pki.root == made.pki.root


def test_a_folder_without_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no lab"):
        load(tmp_path)
