"""How much a peer of the enclave may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on connections and requests; times in seconds.

    Attributes:
        connections: served at the same time; one more gets an error line and is closed.
        keys: asked for at the same time; one more request gets an error line. Each has a session
            of the SDK, which takes some 10 MiB.
        idle: until a line must begin.
        line: from a line's first byte to its last.
        write: until an answer must be taken.
        drain: how long what follows an over-long line is read and thrown away.
        stop: how long a request may go on once the server is told to stop.
        accept_pause: after a failure to accept, such as for want of descriptors.
    """

    connections: int = 128
    keys: int = 4
    idle: float = 60.0
    line: float = 10.0
    write: float = 10.0
    drain: float = 1.0
    stop: float = 5.0
    accept_pause: float = 0.5
