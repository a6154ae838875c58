"""The connections to a relay's target that are being made.

A target whose address is known is dialled without waiting, and epoll reports the outcome. Resolving
a name blocks, so that a host name is resolved and dialled in a short-lived thread for each.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from foobar_shared.addresses import Address, TcpAddress
from proxy.dial import dial, place_of, start

_log: Final = logging.getLogger(__name__)

_STOP_SECONDS: Final = 0.5

Pair: TypeAlias = tuple[socket.socket, socket.socket]  # accepted, dialled


@dataclass(frozen=True, slots=True)
class _Attempt:
    accepted: socket.socket
    dialled: socket.socket
    deadline: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    accepted: socket.socket
    dialled: socket.socket | None


class Diallers:
    """Dials the target for each accepted socket. Used by the relay's thread alone."""

    def __init__(
        self, target: Address, *, seconds: float, epoll: select.epoll, wake: Callable[[], None]
    ) -> None:
        """None that dials yet.

        Args:
            target: where to connect to; a name is resolved anew each time.
            seconds: until the target must have answered.
            epoll: gets the sockets that are being connected; what it reports of a descriptor that
                the relay does not know is for `finish`.
            wake: called from any thread when `finished` has something to take.
        """
        self._target = target
        self._place = place_of(target)
        self._seconds = seconds
        self._epoll = epoll
        self._wake = wake
        self._attempts: dict[int, _Attempt] = {}  # by dialled descriptor, oldest first
        self._threads: dict[socket.socket, threading.Thread] = {}
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._stop_writer.setblocking(False)

    def __len__(self) -> int:
        """How many are being made."""
        return len(self._attempts) + len(self._threads)

    def __contains__(self, descriptor: int) -> bool:
        """Whether it is that of a socket that is being connected, for `finish`."""
        return descriptor in self._attempts

    @property
    def seconds_left(self) -> float | None:
        """Until `expire` has something to do; None where it has not."""
        for oldest in self._attempts.values():
            return max(0.0, oldest.deadline - time.monotonic())
        return None

    def begin(self, accepted: socket.socket) -> Pair | None:
        """Dial for `accepted`, which is closed if that fails.

        Returns:
            The pair where the connection was made at once.
        """
        if isinstance(self._place, TcpAddress):
            self._begin_thread(accepted, self._place)
            return None
        try:
            dialled, is_connected = start(self._place)
        except OSError as error:
            self._give_up(accepted, error)
            return None
        if is_connected:
            return accepted, dialled
        self._epoll.register(dialled, select.EPOLLOUT)
        deadline = time.monotonic() + self._seconds
        self._attempts[dialled.fileno()] = _Attempt(accepted, dialled, deadline)
        return None

    def finish(self, descriptor: int) -> Pair | None:
        """The pair of a dialled socket that epoll reported; None if it is not connected."""
        attempt = self._attempts.pop(descriptor)
        self._epoll.unregister(descriptor)
        code = attempt.dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            attempt.dialled.close()
            self._give_up(attempt.accepted, OSError(code, os.strerror(code)))
            return None
        return attempt.accepted, attempt.dialled

    def finished(self) -> list[Pair]:
        """The pairs that threads have connected since the last call."""
        pairs = []
        for outcome in self._taken():
            del self._threads[outcome.accepted]
            if outcome.dialled is None:
                outcome.accepted.close()
            else:
                pairs.append((outcome.accepted, outcome.dialled))
        return pairs

    def expire(self) -> None:
        """Give up what has taken too long."""
        while self.seconds_left == 0.0:
            _, attempt = next(iter(self._attempts.items()))
            self._forget(attempt)
            self._give_up(
                attempt.accepted, TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            )

    def interrupt(self) -> None:
        """Make the threads give up; from any thread or signal handler."""
        with contextlib.suppress(OSError):
            self._stop_writer.send(b"x")

    def close(self) -> None:
        """Give up all; that takes half a second at most."""
        self.interrupt()
        for attempt in list(self._attempts.values()):
            self._forget(attempt)
            attempt.accepted.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for accepted, thread in self._threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            accepted.close()
        for outcome in self._taken():
            outcome.accepted.close()
            if outcome.dialled is not None:
                outcome.dialled.close()
        self._stop_reader.close()
        self._stop_writer.close()

    def _begin_thread(self, accepted: socket.socket, target: TcpAddress) -> None:
        thread = threading.Thread(
            target=self._dial, args=(accepted, target), name="relay-dial", daemon=True
        )
        self._threads[accepted] = thread
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had
            _log.warning("refused a connection: %s", error)
            del self._threads[accepted]
            accepted.close()

    def _dial(self, accepted: socket.socket, target: TcpAddress) -> None:
        dialled = None
        try:
            dialled = dial(target, seconds=self._seconds, stopping=self._stop_reader)
        except InterruptedError:
            pass
        except OSError as error:
            self._warn(error)
        finally:
            self._outcomes.put(_Outcome(accepted, dialled))
            self._wake()

    def _forget(self, attempt: _Attempt) -> None:
        del self._attempts[attempt.dialled.fileno()]
        self._epoll.unregister(attempt.dialled)
        attempt.dialled.close()

    def _give_up(self, accepted: socket.socket, error: OSError) -> None:
        self._warn(error)
        accepted.close()

    def _warn(self, error: OSError) -> None:
        _log.warning("cannot reach %s: %s", self._target, error.strerror or error)

    def _taken(self) -> list[_Outcome]:
        outcomes = []
        with contextlib.suppress(queue.Empty):
            while True:
                outcomes.append(self._outcomes.get_nowait())
        return outcomes
