"""The Nitro Secure Module as a virtio device (id 33), in front of something that answers requests.

The driver (linux drivers/misc/nsm.c) puts two buffers in the one queue: the request, for reading,
and then room for the response. Both are given back before it is told, once.
"""

import selectors
import socket
from collections.abc import Callable

from tests.vm.guest_memory import BackEndError
from tests.vm.vhost_user import Device
from tests.vm.virtqueue import Chain


class NsmPort(Device):
    """One machine's security module."""

    queues = 1

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        *,
        exchange: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(connection, selector)
        self._exchange = exchange
        self._request: Chain | None = None

    def kicked(self, index: int) -> None:
        """Answer every request whose response has room now."""
        answered = False
        for queue, chain in self.offered(index):
            if self._request is None:
                if chain.writable:
                    raise BackEndError("room for a response comes before its request")
                self._request = chain
                continue
            if chain.readable:
                raise BackEndError("a second request comes before the first one's response")
            request, self._request = self._request, None
            written = chain.write(self._exchange(request.read()))
            queue.push(request, 0)
            queue.push(chain, written)
            answered = True
        if answered:
            self.interrupt(index)

    def stopped(self, index: int) -> None:  # noqa: ARG002 - there is one queue
        """The driver that asked is gone, and the next one begins with a request."""
        self._request = None

    def gone(self) -> None:
        """The request's chain would keep the machine's memory mapped."""
        self._request = None
