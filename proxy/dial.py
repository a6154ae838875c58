"""Connecting to a relay's target: by its address without waiting, or by its name."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Final, TypeAlias

from foobar_shared.addresses import Address, TcpAddress, UnixAddress

Candidate: TypeAlias = tuple[socket.AddressFamily, str | tuple[int, int] | tuple[object, ...]]

_STREAM_AT_ONCE: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_PENDING: Final = {errno.EINPROGRESS, errno.EINTR}


def place_of(target: Address) -> Candidate | TcpAddress:
    """The family and socket address of a target; itself where its name is to be resolved."""
    if isinstance(target, UnixAddress):
        return (socket.AF_UNIX, target.path)
    if not isinstance(target, TcpAddress):
        return (socket.AF_VSOCK, (target.cid, target.port))
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, target.host)
            return (family, (target.host, target.port))
    return target


def start(place: Candidate) -> tuple[socket.socket, bool]:
    """A non-blocking socket that is being connected, and whether it is already.

    Raises:
        OSError: what the system says.
    """
    family, sockaddr = place
    dialled = socket.socket(family, _STREAM_AT_ONCE)
    try:
        code = dialled.connect_ex(sockaddr)
        if code and code not in _PENDING:
            raise OSError(code, os.strerror(code))
    except BaseException:
        dialled.close()
        raise
    return dialled, code == 0 or _is_connected(dialled)


def _is_connected(dialled: socket.socket) -> bool:
    """Whether the target has answered already, as those on the same machine mostly have."""
    try:
        dialled.getpeername()
    except OSError:
        return False
    return True


def dial(target: TcpAddress, *, seconds: float, stopping: socket.socket) -> socket.socket:
    """A non-blocking socket that is connected to `target`.

    A host name's addresses are tried in the resolver's order; each may take an equal share of the
    time that is left, so that one which never answers does not keep the others from being tried.

    Args:
        target: resolved at each call. The resolver's own time can't be bounded.
        seconds: for all of it.
        stopping: readable (or closed) as soon as the attempt is to be given up.

    Raises:
        OSError: what the system says; `TimeoutError` after `seconds`; `InterruptedError` if
            `stopping` became readable.
    """
    deadline = time.monotonic() + seconds
    candidates = _candidates(target)
    failure = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for tried, candidate in enumerate(candidates):
        share = (deadline - time.monotonic()) / (len(candidates) - tried)
        try:
            return _connect(candidate, share, stopping)
        except InterruptedError:
            raise
        except OSError as error:
            failure = error
    raise failure


def _candidates(target: TcpAddress) -> list[Candidate]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise OSError(errno.EINVAL, "not a host name") from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _connect(candidate: Candidate, seconds: float, stopping: socket.socket) -> socket.socket:
    _wait(None, stopping, 0)
    dialled, is_connected = start(candidate)
    try:
        if not is_connected:
            _wait(dialled, stopping, seconds)
            code = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
    except BaseException:
        dialled.close()
        raise
    return dialled


def _wait(dialled: socket.socket | None, stopping: socket.socket, seconds: float) -> None:
    """Wait until `dialled` is connected or has failed; with None, only look at `stopping`."""
    if stopping.fileno() < 0:
        raise InterruptedError(errno.EINTR, "the relay stops")
    poll = select.poll()
    poll.register(stopping, select.POLLIN)
    if dialled is not None:
        poll.register(dialled, select.POLLOUT)
    ready = [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]
    if stopping.fileno() in ready:
        raise InterruptedError(errno.EINTR, "the relay stops")
    if dialled is not None and not ready:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
