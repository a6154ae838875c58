"""How the steps of a command are told, by the kind of stream."""

import io
import sys
import threading

import pytest

from foobar_instance import progress
from foobar_instance.progress import choose_progress


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO, *, quiet: bool) -> str:
    teller = choose_progress(quiet=quiet, stream=stream)
    with teller.waiting("for something"):
        teller.step("one")
    teller.warn("two")
    return stream.getvalue()


def test_a_log_gets_plain_lines() -> None:
    assert tell(io.StringIO(), quiet=False) == "one\nwarning: two\n"


def test_a_terminal_gets_marks_and_colour() -> None:
    told = tell(Tty(), quiet=False)
    assert "\x1b[32m✓\x1b[0m one\n" in told
    assert told.endswith("\x1b[33m!\x1b[0m two\n")


@pytest.mark.parametrize("stream", [io.StringIO(), Tty()])
def test_quiet_tells_warnings_alone(stream: io.StringIO) -> None:
    assert tell(stream, quiet=True) == "warning: two\n"


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    choose_progress(quiet=False).step("one")
    assert capsys.readouterr() == ("", "one\n")
    assert not sys.stderr.isatty()


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal
        self.tried: list[str] = []

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.tried.append(text)
        raise BrokenPipeError


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_listens(*, terminal: bool, quiet: bool) -> None:
    stream = Gone(terminal=terminal)
    assert tell(stream, quiet=quiet) == ""
    assert "two" in stream.tried[-1]


def test_there_is_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    choose_progress(quiet=False).step("one")


@pytest.mark.parametrize("stream", [io.StringIO(), Tty()])
def test_no_text_acts_on_the_terminal(stream: io.StringIO) -> None:
    teller = choose_progress(quiet=False, stream=stream)
    teller.step("a\x1b[2J")
    teller.warn("b\x1b[2J\n")
    told = stream.getvalue()
    assert r"a\x1b[2J" in told
    assert "b\\x1b[2J\\n" in told
    assert "\x1b[2J" not in told
    assert told.count("\n") == 2


class Spun(Tty):
    """A terminal that knows when a frame has been drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.spins = threading.Event()

    def write(self, text: str) -> int:
        self.frames += "for something" in text
        if self.frames == 3:
            self.spins.set()
        return super().write(text)


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
def test_the_sign_of_life_ends_on_a_clear_line(
    monkeypatch: pytest.MonkeyPatch, failure: type[BaseException] | None
) -> None:
    monkeypatch.setattr(progress, "_FRAME_SECONDS", 0.001)
    stream = Spun()
    teller = choose_progress(quiet=False, stream=stream)

    def wait() -> None:
        with teller.waiting("for something"):
            assert stream.spins.wait(10)
            if failure is not None:
                raise failure

    if failure is None:
        wait()
    else:
        with pytest.raises(failure):
            wait()
    told = stream.getvalue()
    assert told.endswith("\r\x1b[K")
    drawn = stream.frames
    teller.step("after")
    assert stream.frames == drawn
    assert stream.getvalue() == told + "\x1b[32m✓\x1b[0m after\n"
