"""What a person sees: text made fit for a terminal, progress on standard error, the log of -v."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

_MAX: Final = 500
_DONE: Final = "\x1b[32m✓\x1b[0m "
_WARNING: Final = "\x1b[33m!\x1b[0m "
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS: Final = 0.1
_CLEAR: Final = "\r\x1b[K"
# The AWS SDK's own logs would show requests with credentials.
_LOGGERS: Final = ("foobar_instance", "proxy")


def one_line(text: object) -> str:
    """Return `text` without control characters and line breaks, at most 500 characters."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    shown = " ".join(shown.split())
    return shown if len(shown) <= _MAX else shown[: _MAX - 3] + "..."


def visible(text: str) -> str:
    """Return `text` on one line, with everything that a terminal would act on escaped.

    Unlike `one_line` it loses nothing: a path with a line break in it can still be recognised.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def log_to_stderr(*, verbose: bool) -> None:
    """Send this project's logs to standard error: all of them, or errors alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR)


class Progress:
    """Tells the steps of a command: marks and colour in a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        """Tell on `stream`, or on standard error; `quiet` leaves out the steps."""
        self._stream = stream or sys.stderr or io.StringIO()  # None after the shell's 2>&-
        self._quiet = quiet
        self._colour = self._stream.isatty() and not quiet

    def step(self, text: str) -> None:
        """Tell what has been done."""
        if not self._quiet:
            self._tell(f"{_DONE if self._colour else ''}{visible(text)}\n")

    def note(self, text: str) -> None:
        """Tell what a result rests on, even when quiet."""
        self._tell(f"{visible(text)}\n")

    def warn(self, text: str) -> None:
        """Tell what weakens a check, even when quiet."""
        self._tell(f"{_WARNING if self._colour else 'warning: '}{visible(text)}\n")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show in a terminal that something takes a while."""
        if not self._colour:
            yield
            return
        over = threading.Event()

        def spin() -> None:
            count = 0
            while not over.wait(_FRAME_SECONDS):
                self._tell(f"{_CLEAR}{_FRAMES[count % len(_FRAMES)]} {visible(text)}")
                count += 1

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._tell(_CLEAR)

    def tally(self, text: str) -> None:
        """Show how far a long job is, in a terminal that shows nothing else; "" clears it."""
        if self._colour and not (sys.stdout and sys.stdout.isatty()):
            self._tell(f"{_CLEAR}{text}")

    def _tell(self, text: str) -> None:
        # A reader who has gone is no reason to lose a key that has just been made.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
