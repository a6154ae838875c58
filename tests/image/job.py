"""`python -m tests.image.job TREE`: run the whole job with the enclave of an image's file tree.

The tree is the enclave's root directory. The emulator plays Nitro, KMS and instance metadata
outside of it. The command line is the real one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from emulator import Emulator, hypervisor
from emulator.hypervisor import EnclaveHost
from foobar_shared import hpke
from foobar_shared.addresses import UnixAddress

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("foobar-instance")
# six makes these with a finder of its own, which Python asks after the one in wiring.py.
FOUND_LATER = "six.moves"
LIBRARIES = {
    "asn1crypto", "boto3", "botocore", "cbor2", "cryptography", "dateutil", "foobar_enclave",
    "foobar_shared", "jmespath", "s3transfer", "six", "urllib3",
}  # fmt: skip


def add_wiring(tree: Path) -> None:
    """Put beside the image what an emulated enclave needs: wiring.py, emulator modules, devices."""
    extra = tree / "test"
    (extra / "emulator").mkdir(parents=True)
    shutil.copy(ROOT / "tests/image/wiring.py", extra)
    for name in ("__init__", "channel", "enclave"):
        shutil.copy(ROOT / f"emulator/{name}.py", extra / "emulator")
    for name in ("null", "random", "urandom"):
        status = Path("/dev", name).stat()
        os.mknod(tree / "dev" / name, status.st_mode, status.st_rdev)


def enclaves_in(tree: Path) -> None:
    """Make the emulator start its enclaves with `tree` as their root directory."""

    def inside(path: Path) -> Path:
        return Path("/") / path.relative_to(tree)

    def spawn(listener: object, nsm: object, host: EnclaveHost) -> subprocess.Popen[bytes]:
        descriptors = tuple(end.fileno() for end in (listener, nsm))  # type: ignore[attr-defined]
        relay = UnixAddress(str(inside(Path(host.relay.path))))
        return subprocess.Popen(
            [
                *("chroot", str(tree), "/usr/local/bin/python3", "-S", "-P", "-B", "-m", "wiring"),
                *("--listener", str(descriptors[0]), "--nsm", str(descriptors[1])),
                *("--relay", str(relay), "--ca-file", str(inside(host.ca_file))),
            ],
            env={"PYTHONPATH": "/app:/test", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.PIPE,
            stdout=host.console,
            stderr=host.console,
            pass_fds=descriptors,
        )

    hypervisor._spawn = spawn


def whole_job(emulator: Emulator, folder: Path) -> None:
    """Make a key, decrypt a message twice, verify the proof, and have a forged message refused."""

    def cli(*arguments: str, code: int = 0) -> str:
        began = time.monotonic()
        done = subprocess.run(
            [PROGRAM, *arguments],
            env=emulator.process_environment(),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        seconds = time.monotonic() - began
        sys.stdout.write(f"{seconds:.1f} s: foobar-instance {arguments[0]}: {done.returncode}\n")
        if done.returncode != code:
            sys.exit(f"{arguments[0]} ended with {done.returncode}, not {code}: {done.stderr}")
        return done.stdout

    cli("create-key")
    ciphertext = cli("encrypt", "--plaintext", "attack at dawn").strip()
    for _ in range(2):
        printed = cli("decrypt", "--ciphertext", ciphertext, "--proof", "result.json")
        if "Count 'a': 4" not in printed.splitlines():
            sys.exit(f"decrypt printed {printed!r}")
    message = hpke.parse(ciphertext)
    if message is None:
        sys.exit("encrypt printed no message of format 2")
    forged = replace(
        message, ciphertext=bytes([message.ciphertext[0] ^ 1, *message.ciphertext[1:]])
    )
    cli("decrypt", "--ciphertext", hpke.encode(forged), code=3)
    cli("verify", "--proof", "result.json", "--ciphertext", ciphertext)


def unexpected(console: str) -> list[str]:
    """Return the modules that the image lacks and this interpreter or its libraries have."""
    names = re.findall(r"^missing-module=(\S+)$", console, re.MULTILINE)
    known = LIBRARIES | set(sys.stdlib_module_names)
    found = []
    for name in names:
        if name.partition(".")[0] in known and not name.startswith(FOUND_LATER):
            try:
                exists = importlib.util.find_spec(name) is not None
            except ModuleNotFoundError:
                exists = False
            found += [name] if exists else []
    return found


def main(tree: Path) -> None:
    """Run the job on `tree`; exit with a message where something is wrong."""
    add_wiring(tree)
    enclaves_in(tree)
    log = tree / "test/console"
    began = time.monotonic()
    try:
        with log.open("wb") as console, Emulator(tree / "run/emulator", console=console) as machine:
            sys.stdout.write(f"{time.monotonic() - began:.1f} s: the enclave answers\n")
            whole_job(machine, tree / "test")
    finally:
        text = log.read_text()
        sys.stdout.write(text)
    if "amazon-roots=5" not in text:
        sys.exit("the image lacks the roots of KMS's certificates")
    if "event=stop" not in text:
        sys.exit("the enclave did not end cleanly")
    if names := unexpected(text):
        sys.exit(f"the image lacks modules that the service asks for: {', '.join(names)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
