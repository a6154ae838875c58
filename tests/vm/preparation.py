"""Builds everything that the scenario's machines boot, into one folder, several parts at once."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from tests.vm import accelerators, authorities, eif, packages, parent_root, ramdisks
from tests.vm.authorities import Authorities
from tests.vm.errors import LabError, LabUnavailableError
from tests.vm.guest import agent
from tests.vm.lab import Lab
from tests.vm.packages import Software

PROJECT: Final = Path(__file__).resolve().parents[2]
COMMAND_LINE: Final = "console=ttyS0 panic=-1 quiet reboot=t"
AGENT_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "/lab"}
IMAGE_SECONDS: Final = 400.0
UNAVAILABLE: Final = 77  # what a program exits with where the machine lacks what it needs

# Of the enclave's files, below its root folder: whom it trusts as KMS, and what it counts.
ROOTS: Final = "app/foobar_enclave/amazon_roots.pem"
CODE: Final = "app/foobar_enclave/service.py"
COUNTED: Final = (b'_COUNTED: Final = b"a"', b'_COUNTED: Final = b"e"')

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Container:
    """The enclave's container image: its files, and what its configuration says of its program."""

    tree: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]


def prepare(folder: Path, *, cache: Path, say: Callable[[str], None]) -> tuple[Lab, str]:
    """The lab below `folder`, with software of `cache`, and the accelerator to be used.

    `say` is given a line when a part is done.

    Raises:
        LabUnavailableError: this machine lacks something.
        LabError: something cannot be built.
    """
    if os.geteuid():
        raise LabUnavailableError("the lab has to be run by root")
    made = authorities.create(datetime.now(UTC))
    with ThreadPoolExecutor(max_workers=2) as pool:
        building = pool.submit(_timed, say, "the enclave's image", lambda: container(folder))
        software = _timed(say, "software", lambda: packages.fetch(cache))
        name, why = accelerators.choose(software, folder)
        say(f"machines run by {name}: {why}")
        root = _timed(
            say,
            "the parent's root",
            lambda: parent_root.build(software, folder, authorities=made),
        )
        built = building.result()
    images = _timed(
        say, "images", lambda: _images(folder, software, root=root, container=built, made=made)
    )
    return Lab(software=software, authorities=made, images=images), name


def container(folder: Path) -> Container:
    """What Dockerfile.enclave makes, below `folder`.

    Raises:
        LabUnavailableError: this machine cannot build it; the text is the builder's.
        LabError: it cannot be built.
    """
    target, log = folder / "image", folder / "image.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROJECT / "tests/image/tree", target],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(IMAGE_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError(f"the enclave's image is not built in {IMAGE_SECONDS:.0f} s") from None
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # on which it clears up
                process.wait()
    last = packages.complaint(log.read_text(errors="replace"))
    if code == UNAVAILABLE:
        raise LabUnavailableError(last)
    if code:
        raise LabError(f"the enclave's image cannot be built: {last}")
    return _container(target)


def altered(code: bytes) -> bytes:
    """The enclave's module of this text with one byte changed: what it counts.

    Raises:
        LabError: the module does not say in one place what it counts.
    """
    if code.count(COUNTED[0]) != 1:
        raise LabError(f"{CODE} has no line {COUNTED[0].decode()}")
    return code.replace(*COUNTED)


def _images(
    folder: Path, software: Software, *, root: Path, container: Container, made: Authorities
) -> dict[str, eif.Image]:
    first = ramdisks.bootstrap(software)
    replaced = {ROOTS: made.tls_ca}
    changed = {CODE: altered((container.tree / CODE).read_bytes())}

    def build(name: str, second: bytes) -> eif.Image:
        return eif.build(
            name,
            folder,
            kernel=software.kernel,
            command_line=COMMAND_LINE,
            ramdisks=[first, second],
        )

    def enclave(replaced: Mapping[str, bytes]) -> bytes:
        return ramdisks.application(
            container.tree,
            command=container.command,
            environment=container.environment,
            replaced=replaced,
        )

    parent = ramdisks.application(root, command=agent.COMMAND, environment=AGENT_ENVIRONMENT)
    return {
        "parent": build("parent", parent),
        "enclave": build("enclave", enclave(replaced)),
        "altered": build("altered", enclave(replaced | changed)),
    }


def _container(folder: Path) -> Container:
    config = json.loads((folder / "config.json").read_text())
    variables = [variable.partition("=") for variable in config["Env"]]
    return Container(
        tree=folder / "tree",
        command=tuple(config["Entrypoint"]),
        environment={name: value for name, _, value in variables},
    )


def _timed(say: Callable[[str], None], what: str, make: Callable[[], _T]) -> _T:
    began = time.monotonic()
    made = make()
    say(f"{what}: {time.monotonic() - began:.1f} s")
    return made
