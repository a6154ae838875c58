"""Frames of the line between a machine's agent and the host: one JSON object a line.

A line is the CRC-32 of the JSON text as eight hexadecimal digits, a space, the text and a newline,
so that bytes which the line loses are noticed. Bytes in messages are base64.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

CHUNK: Final = 32 * 1024  # bytes of content in one message
MAX_FRAME: Final = 96 * 1024  # bytes of a line with its newline
MAX_CONTENT: Final = 16 << 20  # bytes of a file, of standard input, or of an output

_LINE: Final = re.compile(rb"([0-9a-f]{8}) (\{.*\})", re.DOTALL)


class FrameError(ValueError):
    """What came over the line is no frame, or would be too long a one."""


def encode(message: Mapping[str, object]) -> bytes:
    """The frame of a message.

    Raises:
        FrameError: it would be longer than MAX_FRAME.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    frame = b"%08x %s\n" % (zlib.crc32(text), text)
    if len(frame) > MAX_FRAME:
        raise FrameError(f"a frame of {len(frame)} bytes is too long")
    return frame


class Reader:
    """Puts frames together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[dict[str, object]]:
        """The messages that are complete with this piece.

        Raises:
            FrameError: a line is no frame, or longer than MAX_FRAME.
        """
        self._rest += piece
        while (end := self._rest.find(b"\n")) >= 0:
            if end >= MAX_FRAME:
                break
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            yield _decode(line)
        if len(self._rest) >= MAX_FRAME:
            raise FrameError(f"a line of more than {MAX_FRAME} bytes")


def pieces(content: bytes) -> Iterator[bytes]:
    """`content` in parts of CHUNK bytes; none where it is empty."""
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


def text(data: bytes) -> str:
    """Bytes as a message carries them."""
    return base64.b64encode(data).decode()


def data(value: object) -> bytes:
    """The bytes that a message carries.

    Raises:
        FrameError: it carries something else there.
    """
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise FrameError("no base64 where there should be") from error
    raise FrameError("no base64 where there should be")


def _decode(line: bytes) -> dict[str, object]:
    found = _LINE.fullmatch(line)
    if found is None or int(found[1], 16) != zlib.crc32(found[2]):
        raise FrameError(f"not a frame: {line[:80]!r}")
    try:
        message = json.loads(found[2])
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not a frame: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise FrameError(f"not a message: {line[:80]!r}")
    return message
