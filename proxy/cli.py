"""The relay as a program of its own."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import re
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from foobar_shared import VERSION
from foobar_shared.addresses import (
    ENCLAVE,
    Address,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    listen,
    parse_address,
)
from foobar_shared.errors import AddressError
from proxy.relay import Relay, RelayLimits

_U32_MAX: Final = 2**32 - 1
_NO_VSOCK: Final = {errno.EAFNOSUPPORT, errno.ENODEV}
_DEFAULTS: Final = RelayLimits()

_log: Final = logging.getLogger("proxy")

_EXAMPLE: Final = """\
An ADDRESS is vsock:CID:PORT, unix:PATH or HOST:PORT (IPv6: [HOST]:PORT).

example, on the parent instance of an enclave with CID 16 that talks to KMS:
  sudo python -m proxy --listen vsock:3:1001 --to kms.us-east-1.amazonaws.com:443
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see python -m proxy --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Relay until SIGTERM or SIGINT.

    Args:
        arguments: of the command line; those of the process if None.

    Returns:
        The exit status: 0 after a signal, 1 if the relay can't listen.

    Raises:
        SystemExit: 2 after a usage error; 0 after --help and --version.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.allow_cid is not None and not isinstance(options.listen, VsockAddress):
        parser.error("--allow-cid needs a vsock address to --listen at: others have no CID")
    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.DEBUG if options.verbose else "INFO",
        format="%(asctime)s %(levelname)s %(message)s",
    )
    try:
        listener = listen(options.listen)
    except OSError as error:
        print(f"error: {_cannot_listen(options.listen, error)}", file=sys.stderr)  # noqa: T201
        return 1
    _serve(listener, options)
    return 0


def _serve(listener: socket.socket, options: argparse.Namespace) -> None:
    allowed = _allowed_cid(options)
    relay = Relay(
        listener,
        options.to,
        allowed_cid=allowed,
        limits=RelayLimits(
            connections=options.max_connections,
            connect_seconds=options.connect_timeout,
            idle_seconds=options.idle_timeout,
        ),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop())
    place = _bound(options.listen, listener)
    whom = "" if allowed is None else f", for CID {allowed} only"
    _log.info("relaying %s to %s%s", place, options.to, whom)
    relay.serve_forever()
    _log.info("stopped")


def _allowed_cid(options: argparse.Namespace) -> int | None:
    if not isinstance(options.listen, VsockAddress):
        return None
    return ENCLAVE.cid if options.allow_cid is None else int(options.allow_cid)


def _bound(address: Address, listener: socket.socket) -> Address:
    """The address with the port that the system chose, if it was asked to."""
    if isinstance(address, TcpAddress):
        return TcpAddress(address.host, listener.getsockname()[1])
    return address


def _cannot_listen(address: Address, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = (
            "choose a folder that you may write to"
            if isinstance(address, UnixAddress)
            else "ports below 1024 need root, so run this with sudo"
        )
        return f"may not listen at {address}: {advice}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"can't listen at {address}: it is in use; stop what listens there, or choose another"
        )
    if isinstance(address, VsockAddress):
        if error.errno in _NO_VSOCK:
            return (
                f"can't listen at {address}: this machine has no vsock; run this on the parent "
                "instance of a Nitro enclave, or listen at unix:PATH"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return f"can't listen at {address}: CID {address.cid} is not this machine's"
    reason = (error.strerror or str(error)).partition(" (while")[0]
    return f"can't listen at {address}: {reason}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m proxy",
        description="Relays every connection to one address to another, byte for byte.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--listen", type=_address, required=True, metavar="ADDRESS", help="where to listen")
    add("--to", type=_address, required=True, metavar="ADDRESS", help="where to relay to")
    add(
        "--allow-cid",
        type=_cid,
        metavar="CID",
        help=f"on vsock, the only CID whose connections are taken (default: {ENCLAVE.cid})",
    )
    add(
        "--max-connections",
        type=_count,
        default=_DEFAULTS.connections,
        metavar="N",
        help="how many at the same time; more are closed at once (default: %(default)s)",
    )
    add(
        "--connect-timeout",
        type=_seconds,
        default=_DEFAULTS.connect_seconds,
        metavar="S",
        help="seconds until the target must have answered (default: %(default)g)",
    )
    add(
        "--idle-timeout",
        type=_seconds,
        default=_DEFAULTS.idle_seconds,
        metavar="S",
        help="seconds without a byte until a connection is closed (default: %(default)g)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log each connection")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log only what is refused")
    add("--version", action="version", version=f"proxy {VERSION}")
    return parser


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cid(text: str) -> int:
    return _whole(text, 0, _U32_MAX)


def _count(text: str) -> int:
    return _whole(text, 1, 65536)


def _whole(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"needs a number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError("needs a number of seconds, at most 86400")
    return seconds
