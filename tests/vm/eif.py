"""Makes the enclave image file of a machine, and measures it as a user would.

The machine is started from the very same parts, so its NSM is given the registers that
`foobar-instance measure` computes from the file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foobar_instance.eif import measure_image
from tests.support import images
from tests.vm.errors import LabError


@dataclass(frozen=True, slots=True)
class Image:
    """A machine's parts in files: `initrd` is all ramdisks, one after another.

    `eif` holds the same parts as sections, and `pcrs` are its registers: 48 bytes each, by index.
    """

    kernel: Path
    command_line: str
    initrd: Path
    eif: Path
    pcrs: Mapping[int, bytes]


def build(
    name: str, folder: Path, *, kernel: Path, command_line: str, ramdisks: Sequence[bytes]
) -> Image:
    """The image of these parts, as NAME.initrd and NAME.eif in `folder`.

    Raises:
        LabError: a ramdisk's length is no multiple of 4, so that the kernel would not find the
            next one.
    """
    if any(len(ramdisk) % 4 for ramdisk in ramdisks):
        raise LabError("a ramdisk's length has to be a multiple of 4")
    initrd, eif = folder / f"{name}.initrd", folder / f"{name}.eif"
    with initrd.open("wb") as file:
        file.writelines(ramdisks)
    sections = [
        (images.KERNEL, kernel.read_bytes()),
        (images.COMMAND_LINE, command_line.encode()),
        (images.METADATA, json.dumps({"ImageName": name}).encode()),
        *((images.RAMDISK, ramdisk) for ramdisk in ramdisks),
    ]
    eif.write_bytes(images.build(sections))
    measured = measure_image(eif)
    return Image(
        kernel=kernel,
        command_line=command_line,
        initrd=initrd,
        eif=eif,
        pcrs={0: measured.pcr0, 1: measured.pcr1, 2: measured.pcr2},
    )
