#!/usr/bin/env python3
"""Loads what the enclave loads, and prints as JSON every file that this took.

Runs in the build of the enclave image, with the interpreter and the packages that go into it. A
file that it does not name is left out of the image; tests/image/run fails where one is missing. It
needs no network and no device.
"""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

READ: set[str] = set()

# CPython loads these only when it needs them, and this program does not get there: text of other
# encodings, host names in TLS, reports of exceptions.
UNFORESEEN = (
    "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.punycode",
    "encodings.utf_8", "linecache", "tokenize", "traceback",
)  # fmt: skip


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        READ.add(arguments[0])


def _ask_kms() -> None:
    """Send a request that no relay takes: the SDK loads its parts and KMS's data on the first."""
    from foobar_enclave.errors import EnclaveError
    from foobar_enclave.kms import KmsConnector
    from foobar_shared.messages import Credentials

    credentials = Credentials(access_key_id="AKIA", secret_access_key="none", token="none")  # noqa: S106
    session = KmsConnector(_no_relay, pause=lambda _: None).open("us-east-1", credentials)
    with suppress(EnclaveError):
        session.get_public_key("arn:aws:kms:us-east-1:123456789012:key/probe")


def _no_relay() -> socket.socket:
    raise ConnectionRefusedError


def _files() -> dict[str, list[str]]:
    """Return the loaded modules, the files that were opened, and the files mapped into memory."""
    modules = {
        str(module.__file__)
        for module in list(sys.modules.values())
        if getattr(module, "__file__", None) and module.__name__ != "__main__"
    }
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    mapped = {line.split()[5] for line in maps if len(line.split()) == 6}
    return {
        "modules": sorted(modules),
        "read": sorted(READ),
        "mapped": sorted(path for path in mapped if path.startswith("/") and Path(path).is_file()),
    }


if __name__ == "__main__":
    sys.addaudithook(_note)
    for name in (*UNFORESEEN, "foobar_enclave.__main__"):
        importlib.import_module(name)
    _ask_kms()
    json.dump(_files(), sys.stdout)
