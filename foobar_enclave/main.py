"""Wires the program together and runs it.

The order of the start: open the listener and `/dev/nsm`, mix the module's randomness into the
kernel's pool, give up root's rights, make the RSA key, serve. One request then goes

    server.py          service.py                      nsm.py
    a line in  ------> parse, decrypt or create_key -> attest
    a line out <------ the attestation document <----- /dev/nsm

and create_key.py asks AWS KMS too, through kms.py and the parent's relay.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from foobar_enclave.entropy import feed_kernel_pool
from foobar_enclave.errors import EnclaveError
from foobar_enclave.kms import AMAZON_ROOTS, KmsConnector
from foobar_enclave.nsm import NsmDevice
from foobar_enclave.server import EnclaveServer
from foobar_enclave.service import EnclaveService
from foobar_shared import VERSION
from foobar_shared.addresses import ANY_CID, ENCLAVE, RELAY, VsockAddress, connect, listen
from foobar_shared.key_policy import is_debug_mode
from foobar_shared.timeouts import RELAY_CONNECT

# linux/highuid.h DEFAULT_OVERFLOWUID: "nobody", whether or not the image has names for users.
NOBODY: Final = 65534

_logger = logging.getLogger("foobar_enclave")


def main() -> None:
    """Run in a Nitro enclave: `/dev/nsm`, AF_VSOCK port 1000, KMS over the parent's relay."""
    _options()
    # Nothing outside of the measured image has a say in what this program does.
    os.environ.clear()
    try:
        with listen(VsockAddress(ANY_CID, ENCLAVE.port)) as listener:
            run(
                nsm=NsmDevice(),
                listener=listener,
                connect=lambda: connect(RELAY, seconds=RELAY_CONNECT),
                give_up=give_up_root,
            )
    except EnclaveError as error:
        sys.exit(f"foobar-enclave: {error}")
    except OSError as error:
        reason = error.strerror or error
        sys.exit(f"foobar-enclave: cannot serve on vsock port {ENCLAVE.port}: {reason}")


def run(
    *,
    nsm: NsmDevice,
    listener: socket.socket,
    connect: Callable[[], socket.socket],
    ca_file: Path = AMAZON_ROOTS,
    give_up: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; for the main thread of a process of its own.

    The RSA key that it makes lives as long as this call.

    Args:
        nsm: the enclave's module.
        listener: a listening stream socket, which is not closed.
        connect: returns a stream socket connected to the relay to KMS; raises OSError.
        ca_file: PEM of the root certificates that KMS's certificate may be under.
        give_up: gives up the rights that only the start takes; called before any key is made.

    Raises:
        NsmError: the module does not work.
        EntropyError: the kernel's pool takes no seed.
        OSError: the listener does not work.
    """
    _log_to_console()
    _on_stop_signal(sys.exit)
    pcr0 = nsm.describe_pcr(0).data
    feed_kernel_pool(nsm)
    give_up()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    service = EnclaveService(nsm=nsm, kms=KmsConnector(connect, ca_file=ca_file), key=key)
    server = EnclaveServer(listener, service.handle)
    _on_stop_signal(server.stop)
    _logger.info("event=start pcr0=%s debug=%s", pcr0.hex(), is_debug_mode(pcr0))
    server.serve_forever()
    _logger.info("event=stop")


def give_up_root() -> None:
    """Go on as user and group 65534 without further groups; do nothing where this is not root.

    There is no way back: real, effective and saved ids are all set, and the kernel drops every
    capability with the last of root's ids (capabilities(7)).

    Raises:
        OSError: the kernel does not let go, and the process must not go on.
    """
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _logger.info("event=privileges uid=%d gid=%d", os.geteuid(), os.getegid())


def _on_stop_signal(action: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: action())


class _Console(logging.Handler):
    """Writes lines to a non-blocking descriptor; lines that it does not take are counted."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._rest = b""  # of a line that was written in part: it must end before the next begins
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        lines = f"{self.format(record)}\n"
        if self._dropped:
            text = {"msg": f"event=log dropped={self._dropped}", "levelname": "WARNING"}
            lines = f"{self.format(logging.makeLogRecord(text))}\n{lines}"
        self._rest = self._write(self._rest)
        data = lines.encode()
        rest = data if self._rest else self._write(data)
        if rest == data:  # nothing of it was written
            self._dropped += 1
        else:
            self._rest, self._dropped = rest, 0

    def _write(self, data: bytes) -> bytes:
        """Write what the descriptor takes, and return what is left."""
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]
        return data


def _console() -> int:
    """Return a descriptor of standard error whose writes never wait."""
    path = "/dev/stderr" if sys.stderr else os.devnull
    try:  # opened anew, since the flag is shared with everybody who has standard error
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # a socket, or no /proc
        os.set_blocking(sys.stderr.fileno(), False)
        return sys.stderr.fileno()


def _log_to_console() -> None:
    """Write one line an event to standard error, which is the enclave's console."""
    handler = _Console(_console())
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)


def _options() -> None:
    parser = argparse.ArgumentParser(
        prog="foobar-enclave",
        description="The service inside an AWS Nitro Enclave. It takes no options: what it does "
        "is decided by the image that PCR0 measures.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.parse_args()
