from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foobar_enclave.errors import one_line


def test_ordinary_text_is_left_alone() -> None:
    assert one_line("not authorized to perform: kms:CreateKey") == (
        "not authorized to perform: kms:CreateKey"
    )
    assert one_line(None) == "None"


def test_secrets_are_blotted_out_before_the_text_is_cut() -> None:
    assert one_line("a token b token", secrets=["token"]) == "a [secret] b [secret]"
    assert "tok" not in one_line("x" * 495 + "token", secrets=["token"])
    assert one_line("text", secrets=[""]) == "text"


@given(st.text())
def test_any_text_is_one_bounded_line(text: str) -> None:
    line = one_line(text * 100)
    assert len(line) <= 500
    assert line == "" or (line.isprintable() and line.isascii())
