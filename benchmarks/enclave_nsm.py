"""The stand-in for the Nitro Secure Module, in a process of its own, as the module is elsewhere.

Arguments: the descriptor of its socket, and `signing` (P-384, as the emulator does it) or `canned`
(one document for all requests, so that what is measured is the enclave).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import cbor2

from emulator.channel import serve_requests
from emulator.pki import NitroPki
from emulator.virtual_nsm import EmulatedNsm


def main() -> None:
    """Answer until the enclave is gone."""
    descriptor, kind = sys.argv[1:]
    nsm = EmulatedNsm(
        NitroPki.create(now=datetime.now(UTC)),
        module_id="i-0123456789abcdef0-enc0123456789abcdef",
        pcrs={0: bytes(range(48))},
    )
    answer = nsm.exchange if kind == "signing" else _Canned(nsm.exchange)
    with socket.socket(fileno=int(descriptor)) as channel:
        serve_requests(channel, answer)


class _Canned:
    """Answers every request for a document with the first one's."""

    def __init__(self, exchange: Callable[[bytes], bytes]) -> None:
        self._exchange = exchange
        self._first = b""

    def __call__(self, request: bytes) -> bytes:
        decoded = cbor2.loads(request)
        if not isinstance(decoded, dict) or "Attestation" not in decoded:
            return self._exchange(request)
        if not self._first:
            self._first = self._exchange(request)
        return self._first


if __name__ == "__main__":
    main()
