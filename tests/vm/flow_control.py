"""One stream's flow control as an onlooker counts it (virtio 1.2, section 5.10.6.3)."""

from dataclasses import dataclass
from typing import Final

from tests.vm.vsock_packet import Header

_MODULUS: Final = 1 << 32  # the packets' counters are 32 bits wide and wrap around


@dataclass(slots=True)
class _End:
    """What one end has announced and sent; both counters modulo 2**32."""

    buffer_size: int = 0
    forwarded: int = 0
    sent: int = 0


class Flow:
    """What both ends of a stream have announced and sent since it was asked for."""

    def __init__(self, request: Header) -> None:
        """The stream that this packet asks for."""
        self.opener = request.source_cid
        self._ends = {end: _End() for end in request.stream}

    def within_credit(self, header: Header) -> bool:
        """Count a packet, and say whether its receiver has announced room for it.

        The receiver's announcements are seen here before the sender sees them, so a sender that
        keeps to them is never found wrong.
        """
        sender = self._ends[header.source_cid, header.source_port]
        receiver = self._ends[header.destination_cid, header.destination_port]
        # The sender may not know yet of a buffer that has become smaller.
        sender.buffer_size = max(sender.buffer_size, header.buffer_size)
        # A packet that was made earlier may be sent later: it takes nothing back.
        if (header.forwarded - sender.forwarded) % _MODULUS < _MODULUS // 2:
            sender.forwarded = header.forwarded
        sender.sent = (sender.sent + header.length) % _MODULUS
        on_the_way = (sender.sent - receiver.forwarded) % _MODULUS
        return header.length == 0 or on_the_way <= receiver.buffer_size
