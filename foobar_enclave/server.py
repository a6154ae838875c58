"""Accepts connections and deals them to a few threads, which serve many each."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from foobar_enclave.limits import Limits
from foobar_enclave.loop import BUSY, ConnectionLoop, Handler

# One asks the module, which answers one at a time, while the other reads and writes.
_LOOPS: Final = 2
_GRACE_SECONDS: Final = 1.0  # beyond the limit at which threads cut their requests off
# The listener itself is unusable; every other failure of accept() may pass.
_UNUSABLE: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}
_logger = logging.getLogger(__name__)


class EnclaveServer:
    """Answers every line on every connection with what `handle` returns for it."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Handler,
        *,
        may_wait: Callable[[bytes], bool] = lambda _: False,
        limits: Limits = Limits(),
    ) -> None:
        """A server that accepts nothing yet.

        Args:
            listener: a listening stream socket, which stays its owner's to close.
            handle: answers a request line; called from several threads.
            may_wait: whether `handle` may wait for somebody else with this line, so that it is
                called in a thread of its own. All other lines are answered in turn.
            limits: see `Limits`.
        """
        self._listener = listener
        self._limits = limits
        self._stopping = False
        self._failure: OSError | RuntimeError | None = None  # of a thread
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._loops = [
            ConnectionLoop(handle, may_wait=may_wait, limits=limits) for _ in range(_LOOPS)
        ]

    def serve_forever(self) -> None:
        """Accept and serve until `stop` is called; returns when every connection has ended.

        Raises:
            OSError: the listener is not a listening socket any more, or the system fails.
            RuntimeError: a defect of the server itself.
        """
        self._listener.setblocking(False)
        threads: list[threading.Thread] = []
        with self._waker, self._wakened, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wakened, selectors.EVENT_READ)
            try:
                for loop in self._loops:
                    thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
                    thread.start()
                    threads.append(thread)
                while not self._stopping:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            self._accept()
            finally:
                self._end(threads)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End `serve_forever`; safe from other threads and from signal handlers."""
        self._stopping = True
        for loop in self._loops:
            loop.stop()
        with contextlib.suppress(OSError):  # it has ended, or is told already
            self._waker.send(b"\0")

    def _run(self, loop: ConnectionLoop) -> None:
        try:
            loop.run()
        except OSError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - a traceback on the console might hold a secret
            self._failure = RuntimeError(f"defect:{type(error).__name__}")
        finally:
            self.stop()

    def _end(self, threads: list[threading.Thread]) -> None:
        """Have the threads end, but for one whose request hangs: it ends with the process."""
        self.stop()
        deadline = time.monotonic() + self._limits.stop + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the peer was gone before its turn
        except OSError as error:
            if error.errno in _UNUSABLE:
                raise
            _logger.warning("event=accept outcome=%s", errno.errorcode.get(error.errno or 0))
            self._wakened.settimeout(self._limits.accept_pause)
            with contextlib.suppress(TimeoutError):
                self._wakened.recv(1, socket.MSG_PEEK)
            return
        if sum(map(len, self._loops)) < self._limits.connections:
            min(self._loops, key=len).give(connection)
        else:
            _logger.warning("event=connection outcome=busy")
            self._refuse(connection)

    def _refuse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(BUSY)
