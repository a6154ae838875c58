"""Where a program listens or connects: AF_VSOCK in production, unix or TCP sockets elsewhere."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from foobar_shared.errors import AddressError

_UNIX_PATH_MAX: Final = 107  # sockaddr_un.sun_path less its closing zero byte (linux/un.h)
_U32_MAX: Final = 2**32 - 1
_CID_AND_PORT: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
# Labels of a host name have 1 to 63 characters (RFC 1035 section 2.3.4): others can't be resolved.
_HOST_AND_PORT: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?)):([0-9]{1,5})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """A CID and port of AF_VSOCK, each an unsigned 32-bit number (linux/vm_sockets.h)."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Address: TypeAlias = VsockAddress | UnixAddress | TcpAddress

ANY_CID: Final = _U32_MAX  # VMADDR_CID_ANY
ENCLAVE: Final = VsockAddress(cid=16, port=1000)
RELAY: Final = VsockAddress(cid=3, port=1001)  # the parent is always CID 3 to its enclaves


def parse_address(text: str) -> Address:
    """Parse an address: `vsock:CID:PORT`, `unix:PATH` or `HOST:PORT` (IPv6: `[HOST]:PORT`).

    Raises:
        AddressError: none of the three forms, or a number out of range.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        if not rest or "\0" in rest or len(os.fsencode(rest)) > _UNIX_PATH_MAX:
            raise AddressError(f"unix:PATH needs a path of 1 to {_UNIX_PATH_MAX} bytes")
        return UnixAddress(rest)
    if kind == "vsock":
        match = _CID_AND_PORT.fullmatch(rest)
        if match is None:
            raise AddressError("a vsock address looks like vsock:16:1000 (CID and port)")
        if max(int(match[1]), int(match[2])) > _U32_MAX:
            raise AddressError(f"a vsock CID or port is at most {_U32_MAX}")
        return VsockAddress(int(match[1]), int(match[2]))
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise AddressError("an address is vsock:CID:PORT, unix:PATH or HOST:PORT")
    return TcpAddress(match[1] or match[2], int(match[3]))


def connect(address: Address, *, seconds: float) -> socket.socket:
    """Return a stream socket connected to `address` within `seconds`; raise OSError otherwise."""
    if isinstance(address, TcpAddress):
        return socket.create_connection((address.host, address.port), timeout=seconds)
    connection = _stream_socket(address)
    try:
        connection.settimeout(seconds)
        connection.connect(_sockaddr(address))
    except BaseException:
        connection.close()
        raise
    return connection


def listen(address: Address, *, backlog: int = 128) -> socket.socket:
    """Return a stream socket that is bound to `address` and listens.

    A unix socket's file that no program listens on any more is replaced.

    Raises:
        OSError: what the system says, for example EADDRINUSE where another program listens.
    """
    if isinstance(address, TcpAddress):
        return socket.create_server((address.host, address.port), backlog=backlog)
    if isinstance(address, UnixAddress):
        _remove_stale(address)
    listener = _stream_socket(address)
    try:
        listener.bind(_sockaddr(address))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _stream_socket(address: VsockAddress | UnixAddress) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, UnixAddress) else socket.AF_VSOCK
    return socket.socket(family, socket.SOCK_STREAM)


def _sockaddr(address: VsockAddress | UnixAddress) -> str | tuple[int, int]:
    return address.path if isinstance(address, UnixAddress) else (address.cid, address.port)


def _remove_stale(address: UnixAddress) -> None:
    path = Path(address.path)
    if not path.is_socket():
        return
    try:
        connect(address, seconds=1).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
