"""The program: wires the service to the enclave's device and sockets, and runs it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from foobar_enclave.entropy import feed_kernel_pool
from foobar_enclave.errors import EnclaveError
from foobar_enclave.kms import AMAZON_ROOTS, KmsConnector
from foobar_enclave.nsm import NsmDevice
from foobar_enclave.privileges import give_up_root
from foobar_enclave.server import EnclaveServer
from foobar_enclave.service import EnclaveService
from foobar_shared import VERSION
from foobar_shared.addresses import ANY_CID, ENCLAVE, RELAY, VsockAddress, connect, listen
from foobar_shared.key_policy import is_debug_mode

_CONNECT_SECONDS: Final = 10.0
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
                connect=lambda: connect(RELAY, seconds=_CONNECT_SECONDS),
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
    """Serve until SIGTERM or SIGINT; for the main thread.

    Feeds the kernel's entropy pool and makes the RSA key, which lives as long as this call.

    Args:
        nsm: the enclave's module.
        listener: a listening stream socket, which is not closed.
        connect: a stream socket connected to the relay to KMS; raises OSError.
        ca_file: PEM of the authorities that KMS's certificate may be under.
        give_up: gives up the rights that only the start takes; called before any key is made.

    Raises:
        NsmError: the module does not work.
        EntropyError: the kernel's pool takes no seed.
        OSError: the listener does not work.
    """
    with _console_log(), _stop_signals() as on_stop:
        pcr0 = nsm.describe_pcr(0).data
        feed_kernel_pool(nsm)
        give_up()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        service = EnclaveService(nsm=nsm, kms=KmsConnector(connect, ca_file=ca_file), key=key)
        server = EnclaveServer(listener, service.handle, may_wait=service.may_wait)
        on_stop(server.stop)
        _logger.info("event=start pcr0=%s debug=%s", pcr0.hex(), is_debug_mode(pcr0))
        server.serve_forever()
        _logger.info("event=stop")


@contextmanager
def _stop_signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Takes SIGTERM and SIGINT, and remembers them until there is something to stop."""
    asked = False
    actions: list[Callable[[], None]] = []

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for action in actions:
            action()

    def on_stop(action: Callable[[], None]) -> None:
        actions.append(action)
        if asked:
            action()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield on_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _console_log() -> Iterator[None]:
    """One line an event on standard error, which is the enclave's console."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    level = _logger.level
    _logger.setLevel(logging.INFO)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)


def _options() -> None:
    parser = argparse.ArgumentParser(
        prog="foobar-enclave",
        description="The service inside an AWS Nitro Enclave. It takes no options: what it does "
        "is decided by the image that PCR0 measures.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.parse_args()
