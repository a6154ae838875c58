"""Text from outside on one line of a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.text import one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("  two\r\nlines\t ", "two lines"),
        ("\x1b[2Jx\x07\x9b", "[2Jx"),
        ("right\u202eto left", "right to left"),
        ("\u00e9\u4e2d", "\u00e9\u4e2d"),
        ("\ud800x", "x"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_the_length() -> None:
    assert one_line("x" * 500) == "x" * 500
    assert one_line("x" * 501) == "x" * 497 + "..."


def test_anything_that_has_a_text() -> None:
    assert one_line(ValueError("a\nb")) == "a b"


@given(st.text())
def test_always_one_printable_line(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    assert len(shown) <= 500
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("two  words", "two  words"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("right\u202eto left", r"right\u202eto left"),
        ("\u00e9\u4e2d", "\u00e9\u4e2d"),
        ("\udcff", r"\udcff"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_what_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_anything_is_made_visible_on_one_line(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
