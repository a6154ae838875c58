"""Strict base64 and JSON."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.encoding import from_base64, parse_json_object, to_base64, to_json
from foobar_shared.errors import MessageError

leaves = st.none() | st.booleans() | st.integers() | st.text()
json_values = leaves | st.lists(leaves) | st.dictionaries(st.text(), st.lists(leaves))


@given(st.binary())
def test_base64_round_trip(data: bytes) -> None:
    assert from_base64(to_base64(data)) == data


@given(st.text())
def test_base64_has_one_text_for_each_value(text: str) -> None:
    try:
        data = from_base64(text)
    except MessageError:
        return
    assert to_base64(data) == text


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YR==", "Y Q==", "YQ==\n", "YQ-_", "é", "YQ==YQ=="])
def test_base64_refuses_other_forms(text: str) -> None:
    with pytest.raises(MessageError, match="base64"):
        from_base64(text)


@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_json_round_trip(value: dict[str, object]) -> None:
    assert parse_json_object(to_json(value)) == value


@given(st.binary())
def test_json_raises_nothing_but_message_errors(text: bytes) -> None:
    try:
        parse_json_object(text)
    except MessageError:
        return
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a":1}x', "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b'{"a":"\xff"}', "not valid UTF-8"),
        (b'{"a":1,"a":2}', "given twice"),
        (b'{"a":{"b":1,"b":1}}', "given twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_json_refuses(text: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        parse_json_object(text)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_in_any_thread(opening: bytes) -> None:
    with ThreadPoolExecutor(1) as threads:
        parsed = threads.submit(parse_json_object, opening * (1024 * 1024 // len(opening)))
        with pytest.raises(MessageError, match="nested too deep"):
            parsed.result()
