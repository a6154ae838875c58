import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.guest import frames

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(), VALUES, max_size=5)


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 50))
def test_messages_arrive_in_whatever_pieces(messages: list[dict[str, object]], size: int) -> None:
    line = b"".join(frames.encode(message) for message in messages)
    reader = frames.Reader()
    pieces = [line[start : start + size] for start in range(0, len(line), size)]
    assert [message for piece in pieces for message in reader.feed(piece)] == messages


@given(st.binary(max_size=2000))
def test_bytes_are_carried_as_they_are(data: bytes) -> None:
    assert frames.data(frames.text(data)) == data


@given(st.binary(max_size=200))
def test_anything_is_a_message_or_refused(line: bytes) -> None:
    try:
        messages = list(frames.Reader().feed(line + b"\n"))
    except frames.FrameError:
        return
    assert all(isinstance(message, dict) for message in messages)


def test_every_lost_byte_is_noticed() -> None:
    frame = frames.encode({"op": "data", "data": "QUJD"})
    for position in range(len(frame) - 1):
        with pytest.raises(frames.FrameError):
            list(frames.Reader().feed(frame[:position] + frame[position + 1 :]))


def signed(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[    0.1] kernel\n",
        b"00000000 {}\n",
        signed(b"[1]"),
        signed(b"{,}"),
        signed(b"{\xff}"),
        signed(b'{"a":' + b"[" * 90_000 + b"}"),
    ],
)
def test_what_is_no_frame_is_refused(line: bytes) -> None:
    with pytest.raises(frames.FrameError, match="not a"):
        list(frames.Reader().feed(line))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_frame_has_a_bound(end: bytes) -> None:
    with pytest.raises(frames.FrameError, match="a line of more than"):
        list(frames.Reader().feed(b"x" * frames.MAX_FRAME + end))
    with pytest.raises(frames.FrameError, match="too long"):
        frames.encode({"a": "x" * frames.MAX_FRAME})


def test_a_chunk_fits_into_a_frame() -> None:
    assert len(frames.encode({"data": frames.text(bytes(frames.CHUNK))})) < frames.MAX_FRAME


def test_content_is_cut_into_chunks() -> None:
    content = bytes(range(256)) * (2 * frames.CHUNK // 256) + b"rest"
    pieces = list(frames.pieces(content))
    assert [len(piece) for piece in pieces] == [frames.CHUNK, frames.CHUNK, 4]
    assert b"".join(pieces) == content
    assert list(frames.pieces(b"")) == []


def test_what_is_no_base64_is_refused() -> None:
    for value in ("a", "$$$$", None, 1):
        with pytest.raises(frames.FrameError, match="base64"):
            frames.data(value)
