"""The command line of the relay."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import re
import signal
import sys
from collections.abc import Sequence
from functools import partial
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
    options = parse(arguments)
    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.DEBUG if options.verbose else "INFO",
        format="%(asctime)s %(levelname)s %(message)s",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        listener = listen(options.listen)
    except OSError as error:
        print(f"error: {cannot_listen(options.listen, error)}", file=sys.stderr)  # noqa: T201
        return 1
    limits = RelayLimits(options.max_connections, options.connect_timeout, options.idle_timeout)
    relay = Relay(listener, options.to, allowed_cid=options.allow_cid, limits=limits)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop())
    place = options.listen
    if isinstance(place, TcpAddress):  # port 0 lets the system choose one
        place = TcpAddress(place.host, listener.getsockname()[1])
    whom = "" if options.allow_cid is None else f", for CID {options.allow_cid} only"
    _log.info("relaying %s to %s%s", place, options.to, whom)
    relay.serve_forever()
    _log.info("stopped")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Returns:
        The options; `allow_cid` is None unless the relay listens on vsock.

    Raises:
        SystemExit: 2 after a usage error; 0 after --help and --version.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not isinstance(options.listen, VsockAddress):
        if options.allow_cid is not None:
            parser.error("--allow-cid needs a vsock address to --listen at: others have no CID")
    elif options.allow_cid is None:
        options.allow_cid = ENCLAVE.cid
    return options


def cannot_listen(address: Address, error: OSError) -> str:
    """Say in one line why the relay can't listen at `address`, and what to do."""
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = "ports below 1024 need root, so run this with sudo"
        if isinstance(address, UnixAddress):
            advice = "choose a directory that you may write to"
        return f"may not listen at {address}: {advice}"
    reason = (error.strerror or str(error)).partition(" (while")[0]
    if error.errno == errno.EADDRINUSE:
        reason = "it is in use; stop what listens there, or choose another"
    elif isinstance(address, VsockAddress) and error.errno in (errno.EAFNOSUPPORT, errno.ENODEV):
        reason = (
            "this machine has no vsock; run this on the parent instance of a Nitro enclave, "
            "or listen at unix:PATH"
        )
    elif isinstance(address, VsockAddress) and error.errno == errno.EADDRNOTAVAIL:
        reason = f"CID {address.cid} is not this machine's"
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
    text = f"on vsock, the only CID whose connections are taken (default: {ENCLAVE.cid})"
    add("--allow-cid", type=partial(_whole, 0, _U32_MAX), metavar="CID", help=text)
    text = "how many at the same time; more are closed at once (default: %(default)s)"
    number = _DEFAULTS.connections
    add("--max-connections", type=partial(_whole, 1, 65536), default=number, metavar="N", help=text)
    text = "seconds until the target must have answered (default: %(default)g)"
    seconds = _DEFAULTS.connect_seconds
    add("--connect-timeout", type=_seconds, default=seconds, metavar="S", help=text)
    text = "seconds without a byte until a connection is closed (default: %(default)g)"
    seconds = _DEFAULTS.idle_seconds
    add("--idle-timeout", type=_seconds, default=seconds, metavar="S", help=text)
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log each connection")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log only what is refused")
    add("--version", action="version", version=f"proxy {VERSION}")
    return parser


def _address(text: str) -> Address:
    try:
        address = parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    # The resolver takes a bare number for an IPv4 address: 19 would be 0.0.0.19.
    if isinstance(address, TcpAddress) and address.host.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text} has a bare number for its host; for vsock, write vsock:CID:PORT"
        )
    return address


def _whole(least: int, most: int, text: str) -> int:
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
