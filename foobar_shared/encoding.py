"""Strict base64 and strict JSON: one text for each value, bounded before it is parsed."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Final, NoReturn

from foobar_shared.errors import MessageError

MAX_DEPTH: Final = 8
"""How deep arrays and objects may nest; the deepest message of the contract has 3 levels."""

# A string (to its end, or to the end of the text where it has none) or a bracket. Possessive
# quantifiers keep the scan linear whatever the input.
_TOKEN: Final = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|(?P<open>[\[{])|(?P<close>[\]}])', re.DOTALL
)


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4), as Go writes a `[]byte`."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """The inverse of `to_base64`.

    Raises:
        MessageError: `text` is not the one canonical encoding of some bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageError("not valid base64") from error
    if to_base64(data) != text:
        raise MessageError("not canonical base64")
    return data


def base64_field(fields: Mapping[str, object], name: str) -> bytes:
    """The bytes whose base64 is the text in field `name` of a JSON object.

    Raises:
        MessageError: missing, not text, or not base64; names the field and not its content.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise MessageError(f"{name} is missing or no text")
    try:
        return from_base64(value)
    except MessageError as error:
        raise MessageError(f"{name} is {error}") from None


def to_json(value: object) -> bytes:
    """Compact ASCII JSON without a line break."""
    return _ENCODER.encode(value).encode()


def parse_json_object(text: bytes) -> dict[str, object]:
    """The JSON object (RFC 8259) in `text`, UTF-8, nested at most `MAX_DEPTH` deep.

    Raises:
        MessageError: not UTF-8, not JSON, not an object, a key given twice, or nested too deep.
    """
    _check_depth(text)
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MessageError("not valid UTF-8") from error
    except ValueError as error:
        raise MessageError("not valid JSON") from error
    if not isinstance(value, dict):
        raise MessageError("not a JSON object")
    return value


def _check_depth(text: bytes) -> None:
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        if depth > MAX_DEPTH:
            raise MessageError(f"JSON nested more than {MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MessageError("a JSON key is given twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise MessageError(f"{name} is not JSON")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
