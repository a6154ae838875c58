"""Steps on standard error as they happen: marks and colour in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

from foobar_instance.text import visible

_DONE: Final = "\x1b[32m✓\x1b[0m"
_WARNING: Final = "\x1b[33m!\x1b[0m"
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS: Final = 0.1
_CLEAR: Final = "\r\x1b[K"


class Progress(Protocol):
    """Where the steps of a command are told."""

    def step(self, text: str) -> None:
        """Something has been done."""
        ...

    def warn(self, text: str) -> None:
        """Something that the user should know of."""
        ...

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Something takes a while."""
        ...


class Quiet:
    """Tells warnings alone: what weakens a check is never hidden."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        """See `Progress`."""

    def warn(self, text: str) -> None:
        """See `Progress`."""
        _tell(self._stream, f"warning: {visible(text)}\n")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:  # noqa: ARG002
        """See `Progress`."""
        yield


class Lines:
    """A plain line for each step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        """See `Progress`."""
        _tell(self._stream, f"{visible(text)}\n")

    def warn(self, text: str) -> None:
        """See `Progress`."""
        _tell(self._stream, f"warning: {visible(text)}\n")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:  # noqa: ARG002
        """See `Progress`; a log needs no sign of life."""
        yield


class Terminal:
    """Marks, colour, and a sign of life while something takes long."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        """See `Progress`."""
        _tell(self._stream, f"{_DONE} {visible(text)}\n")

    def warn(self, text: str) -> None:
        """See `Progress`."""
        _tell(self._stream, f"{_WARNING} {visible(text)}\n")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """See `Progress`."""
        over = threading.Event()

        def spin() -> None:
            count = 0
            while not over.wait(_FRAME_SECONDS):
                frame = _FRAMES[count % len(_FRAMES)]
                _tell(self._stream, f"{_CLEAR}{frame} {visible(text)}")
                count += 1

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            _tell(self._stream, _CLEAR)


def choose_progress(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """The way of telling that fits the stream; standard error unless given."""
    stream = stream or sys.stderr or io.StringIO()  # the shell's 2>&-
    if quiet:
        return Quiet(stream)
    return Terminal(stream) if stream.isatty() else Lines(stream)


def _tell(stream: TextIO, text: str) -> None:
    """Write `text`; a reader who has gone is no reason to lose a key that has just been made."""
    with contextlib.suppress(OSError):
        stream.write(text)
        stream.flush()
