"""Text from outside on one line of a terminal, and progress by the kind of stream."""

import io
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.terminal import Progress, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  two\r\nlines\t ", "two lines"),
        ("\x1b[2Jx\x07\x9b", "[2Jx"),
        ("right\u202eto left", "right to left"),
        ("\u00e9\u4e2d", "\u00e9\u4e2d"),
        ("\ud800x", "x"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 497 + "..."),
        (ValueError("a\nb"), "a b"),
    ],
)
def test_one_line(text: object, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two  words", "two  words"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("right\u202eto left", r"right\u202eto left"),
        ("\udcff", r"\udcff"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_any_text_is_shown_on_one_printable_line(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == text or not text.isprintable()
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 500
    one_line(text).encode()


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(stream: io.StringIO, *, quiet: bool = False) -> str:
    progress = Progress(quiet=quiet, stream=stream)
    with progress.waiting("for something"):
        progress.step("one\x1b[2J")
    progress.note("two")
    progress.warn("three\n")
    return stream.getvalue()


def test_a_log_gets_plain_lines() -> None:
    assert tell(io.StringIO()) == "one\\x1b[2J\ntwo\nwarning: three\\n\n"


def test_a_terminal_gets_marks_and_colour() -> None:
    told = tell(Tty())
    assert "\x1b[32m✓\x1b[0m one\\x1b[2J\n" in told
    assert told.endswith("two\n\x1b[33m!\x1b[0m three\\n\n")


@pytest.mark.parametrize("stream", [io.StringIO(), Tty()])
def test_quiet_leaves_out_the_steps(stream: io.StringIO) -> None:
    assert tell(stream, quiet=True) == "two\nwarning: three\\n\n"


def test_standard_error_is_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Progress().step("one")
    assert capsys.readouterr() == ("", "one\n")
    monkeypatch.setattr(sys, "stderr", None)
    Progress().step("nobody hears this")


@pytest.mark.parametrize("kind", [io.StringIO, Tty])
def test_a_reader_who_has_gone_is_no_error(
    kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str) -> int:
        raise BrokenPipeError

    stream = kind()
    monkeypatch.setattr(stream, "write", gone)
    assert tell(stream) == ""


class Spun(Tty):
    """A terminal that knows when a frame has been drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def write(self, text: str) -> int:
        if "for something" in text:
            self.drawn.set()
        return super().write(text)


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_the_sign_of_life_ends_on_a_clear_line(failure: type[BaseException] | None) -> None:
    stream = Spun()
    progress = Progress(stream=stream)
    try:
        with progress.waiting("for something"):
            assert stream.drawn.wait(10)
            if failure:
                raise failure
    except KeyboardInterrupt:
        assert failure
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_terminal_alone_shows_how_far_a_job_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def tallied(stream: io.StringIO) -> str:
        progress = Progress(stream=stream)
        progress.tally("5 messages")
        progress.tally("")
        return stream.getvalue()

    assert tallied(Tty()) == "\r\x1b[K5 messages\r\x1b[K"
    assert tallied(io.StringIO()) == ""
    monkeypatch.setattr(sys, "stdout", Tty())  # it would stand between the results
    assert tallied(Tty()) == ""
