"""Builds what each machine boots: a kernel and two ramdisks, and an enclave image file of them.

The ramdisks are those that `nitro-cli build-enclave` writes. The first has /init, busybox and
kernel modules. The second has the machine's files in /rootfs, the program to run in /cmd, one
argument a line, and its environment in /env. PCR1 covers the first ramdisk and PCR2 the second.
"""

import json
import lzma
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from foobar_instance.eif import measure_image
from tests.support import images
from tests.vm import aws, packages, parent_root
from tests.vm.aws import Authorities
from tests.vm.packages import Software
from tests.vm.parent_root import PROJECT
from tests.vm.programs import LabError, LabUnavailableError, run

COMMAND_LINE: Final = "console=ttyS0 panic=-1 quiet reboot=t"
MODULES: Final = (  # in the order in which they are loaded
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
    "drivers/misc/nsm",
)
# `reboot` and not `poweroff`, which may hang; QEMU is started so that a reboot ends it.
INIT: Final = """\
#!/bin/busybox sh
B=/bin/busybox
R=/rootfs
for directory in dev proc sys; do $B mkdir -p $R/$directory; done
$B mount -t devtmpfs dev $R/dev
$B mount -t proc proc $R/proc
$B mount -t sysfs sys $R/sys
for directory in tmp run; do
    [ ! -d $R/$directory ] || $B mount -t tmpfs -o mode=1777 $directory $R/$directory
done
for module in /mods/*.ko; do
    $B insmod $module || echo "lab: cannot load $module"
done
set --
while IFS= read -r line; do set -- "$@" "$line"; done < /env
set -- "$@" $B chroot $R
while IFS= read -r line; do set -- "$@" "$line"; done < /cmd
$B env -i "$@" < $R/dev/null
echo "lab: ended with $?"
$B reboot -f
"""
# The second address of the loopback interface is that of instance metadata.
AGENT: Final = """\
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ip address add 169.254.169.254/32 dev lo
exec /usr/sbin/qemu-ga --method=virtio-serial --path=/dev/vport0p1 --statedir=/run
"""
# The enclave's file that says whose TLS certificates KMS may have.
ROOTS: Final = "app/foobar_enclave/amazon_roots.pem"
# The line of the enclave's code that the altered image has otherwise.
COUNTED: Final = (b'plaintext.count(b"a")', b'plaintext.count(b"e")')
SECONDS: Final = 120.0
IMAGE_SECONDS: Final = 400.0


@dataclass(frozen=True, slots=True)
class Image:
    """A machine's parts in files; `initrd` is both ramdisks, `pcrs` are PCR0 to PCR2 of `eif`."""

    kernel: Path
    initrd: Path
    eif: Path
    pcrs: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Lab:
    """All that the scenario's machines need.

    `images` has `parent`, `enclave`, and `altered`: the enclave's with one byte of code changed.
    """

    software: Software
    authorities: Authorities
    images: Mapping[str, Image]


def build_lab(directory: Path, *, cache: Path, say: Callable[[str], None]) -> Lab:
    """Build everything in `directory`, with the software in `cache`.

    Raises:
        LabUnavailableError: This machine lacks something.
        LabError: Something cannot be built.
    """
    if os.geteuid():
        raise LabUnavailableError("the lab has to be run by root")
    authorities = aws.create_authorities()
    container, root = directory / "image", directory / "parent"
    with ThreadPoolExecutor(max_workers=1) as pool:
        tree = [f"{PROJECT / 'tests/image/tree'}", f"{container}"]
        building = pool.submit(run, tree, doing="build the enclave's image", seconds=IMAGE_SECONDS)
        software = packages.fetch(cache)
        say("Debian's packages are unpacked")
        parent_root.build(software.guest, root, authorities)
        say("the parent's root directory is made")
        building.result()
        say("the enclave's image is built")
    (container / "tree" / ROOTS).write_bytes(authorities.files["tls_ca.pem"])
    config = json.loads((container / "config.json").read_text())
    parts = Parts(directory, software)
    command = ["/bin/busybox", "sh", "-c", AGENT.replace("\n", "; ")]
    parent = parts.second(root, command, ["PATH=/usr/bin"])
    enclave = parts.second(container / "tree", config["Entrypoint"], config["Env"])
    built = {
        "parent": parts.image("parent", parent),
        "enclave": parts.image("enclave", enclave),
        "altered": parts.image("altered", altered(enclave)),
    }
    say("the ramdisks and image files are written")
    return Lab(software, authorities, built)


def altered(ramdisk: bytes) -> bytes:
    """Return the enclave's ramdisk with one byte of code changed: which letter it counts.

    Raises:
        LabError: The line is not there exactly once.
    """
    if ramdisk.count(COUNTED[0]) != 1:
        raise LabError(f"the enclave's code has not one line {COUNTED[0].decode()}")
    return ramdisk.replace(*COUNTED)


class Parts:
    """Makes ramdisks and images in one directory."""

    def __init__(self, directory: Path, software: Software) -> None:
        """Make the first ramdisk, which all machines share."""
        self._directory = directory
        self._kernel = software.kernel
        self._busybox = software.guest / "usr/bin/busybox"
        first = directory / "first"
        for name in ("bin", "mods"):
            (first / name).mkdir(parents=True)
        shutil.copy(self._busybox, first / "bin")
        (first / "init").write_text(INIT)
        (first / "init").chmod(0o755)
        for number, name in enumerate(MODULES):
            packed = software.modules / f"{name}.ko.xz"
            module = lzma.decompress(packed.read_bytes())
            (first / f"mods/{number}-{packed.stem}").write_bytes(module)
        self._first = self._archive(first)

    def second(self, root: Path, command: Sequence[str], environment: Sequence[str]) -> bytes:
        """Return the second ramdisk; moves `root` into the directory that it is made of."""
        second = self._directory / f"{root.name}.second"
        second.mkdir()
        root.rename(second / "rootfs")
        for name, lines in (("cmd", command), ("env", environment)):
            (second / name).write_text("".join(f"{line}\n" for line in lines))
        return self._archive(second)

    def image(self, name: str, second: bytes) -> Image:
        """Write NAME.initrd and NAME.eif, and measure the latter as `measure` does."""
        initrd, eif = self._directory / f"{name}.initrd", self._directory / f"{name}.eif"
        initrd.write_bytes(self._first + second)
        sections = [
            (images.KERNEL, self._kernel.read_bytes()),
            (images.COMMAND_LINE, COMMAND_LINE.encode()),
            (images.METADATA, json.dumps({"ImageName": name}).encode()),
            (images.RAMDISK, self._first),
            (images.RAMDISK, second),
        ]
        eif.write_bytes(images.build(sections))
        measured = measure_image(eif)
        pcrs = {0: measured.pcr0, 1: measured.pcr1, 2: measured.pcr2}
        return Image(kernel=self._kernel, initrd=initrd, eif=eif, pcrs=pcrs)

    def _archive(self, tree: Path) -> bytes:
        """Return a cpio archive of the files in `tree`, all of them root's."""
        archive = self._directory / f"{tree.name}.cpio"
        find = 'cd "$1" && "$2" find . ! -name . | "$2" cpio -o -H newc -R 0:0 -F "$3"'
        command = ["sh", "-c", find, "sh", f"{tree}", f"{self._busybox}", f"{archive}"]
        run(command, doing=f"archive {tree.name}", seconds=SECONDS)
        data = archive.read_bytes()
        return data + bytes(-len(data) % 512)
