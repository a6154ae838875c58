"""What one run of the lab has built: kept in a folder, from which the scenario starts machines.

The folder holds lab.json, which names the files of the software and of the images by their paths,
and the authorities' PEM files, with the Nitro root's private key: a run's own, trusted nowhere.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm import authorities
from tests.vm.authorities import Authorities
from tests.vm.eif import Image
from tests.vm.errors import LabError
from tests.vm.packages import Software

VARIABLE: Final = "FOOBAR_LAB"  # the folder, for the scenario
IMAGES: Final = ("parent", "enclave", "altered")

_FILE: Final = "lab.json"


@dataclass(frozen=True, slots=True)
class Lab:
    """`images` has those of IMAGES: `altered` is the enclave's with one byte of code changed."""

    software: Software
    authorities: Authorities
    images: Mapping[str, Image]


def save(lab: Lab, folder: Path) -> None:
    """Keep `lab` in `folder`, for `load`."""
    software = lab.software
    described = {
        "software": {
            "qemu": list(software.qemu),
            "kernel": str(software.kernel),
            "modules": [str(path) for path in software.modules],
            "busybox": str(software.busybox),
            "guest": str(software.guest),
        },
        "images": {name: _describe(image) for name, image in lab.images.items()},
    }
    authorities.save(lab.authorities, folder)
    (folder / _FILE).write_text(json.dumps(described, indent=2) + "\n")


def load(folder: Path) -> Lab:
    """The lab that is kept in `folder`.

    Raises:
        LabError: there is none.
    """
    try:
        described = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        raise LabError(f"{folder} holds no lab: build one with python -m tests.vm") from None
    software = described["software"]
    return Lab(
        software=Software(
            qemu=tuple(software["qemu"]),
            kernel=Path(software["kernel"]),
            modules=tuple(Path(path) for path in software["modules"]),
            busybox=Path(software["busybox"]),
            guest=Path(software["guest"]),
        ),
        authorities=authorities.load(folder),
        images={name: _image(image) for name, image in described["images"].items()},
    )


def _describe(image: Image) -> dict[str, object]:
    return {
        "kernel": str(image.kernel),
        "command_line": image.command_line,
        "initrd": str(image.initrd),
        "eif": str(image.eif),
        "pcrs": {str(index): value.hex() for index, value in image.pcrs.items()},
    }


def _image(described: dict[str, object]) -> Image:
    pcrs = described["pcrs"]
    if not isinstance(pcrs, dict):
        raise LabError("lab.json has an image without registers")
    return Image(
        kernel=Path(str(described["kernel"])),
        command_line=str(described["command_line"]),
        initrd=Path(str(described["initrd"])),
        eif=Path(str(described["eif"])),
        pcrs={int(index): bytes.fromhex(value) for index, value in pcrs.items()},
    )
