"""Strict base64 and JSON, and typed access to the fields of a JSON object."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final, NoReturn

from foobar_shared.errors import MessageError

MAX_TEXT: Final = 8192
"""Longest text field in characters; a session token has no published limit (seen: some 1,500)."""


def to_base64(data: bytes) -> str:
    """Return standard base64 with padding (RFC 4648 section 4), as Go writes a `[]byte`."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Return the bytes whose `to_base64` is `text`.

    Raises:
        MessageError: `text` is not the one canonical encoding of some bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MessageError("not valid base64") from error
    if to_base64(data) != text:
        raise MessageError("not canonical base64")
    return data


def to_json(value: object) -> bytes:
    """Return compact ASCII JSON without a line break; bytes become base64."""
    return _ENCODER.encode(value).encode()


def to_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_json_object(text: bytes) -> dict[str, object]:
    """Parse `text` as one JSON object, as `parse_json` does.

    Raises:
        MessageError: see `parse_json`, or not an object.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise MessageError("not a JSON object")
    return value


def parse_json(text: bytes) -> object:
    """Parse `text` as one JSON value (RFC 8259) in UTF-8.

    Raises:
        MessageError: not UTF-8, not JSON, a key given twice, or nested too deep.
    """
    try:
        value: object = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MessageError("not valid UTF-8") from error
    except ValueError as error:
        raise MessageError("not valid JSON") from error
    except RecursionError:
        raise MessageError("JSON nested too deep") from None
    return value


class Fields:
    """Typed access to the fields of one JSON object.

    Every method raises `MessageError`; its text names the field and never quotes its content. A
    field that is null counts as absent, as Go writes a pointer that is not set.
    """

    def __init__(self, path: str, value: object) -> None:
        """Wrap `value`, which errors call `path` (empty for a whole message)."""
        self._prefix = f"{path}." if path else ""
        if not isinstance(value, Mapping):
            raise MessageError(f"{path}: not a JSON object")
        self._values = value

    def has(self, name: str) -> bool:
        """Return whether the field is there, and neither null nor empty text (Go's `[]byte`)."""
        return self._values.get(name) not in (None, "")

    def text(self, name: str, *, maximum: int = MAX_TEXT) -> str:
        """Return a text of 1 to `maximum` printable ASCII characters."""
        value = self._required(name)
        if not isinstance(value, str):
            raise self.error(name, "not text")
        if not (0 < len(value) <= maximum and value.isascii() and value.isprintable()):
            raise self.error(name, f"not 1 to {maximum} printable characters")
        return value

    def data(self, name: str, *, length: int | None = None) -> bytes:
        """Return the bytes whose base64 is in the field; `length` of them, where it is given."""
        value = self._required(name)
        if not isinstance(value, str):
            raise self.error(name, "not base64 text")
        try:
            data = from_base64(value)
        except MessageError as error:
            raise self.error(name, str(error)) from None
        if length is not None and len(data) != length:
            raise self.error(name, f"not {length} bytes")
        return data

    def integer(self, name: str, *, minimum: int = 0, maximum: int) -> int:
        """Return an integer from `minimum` to `maximum`."""
        value = self._required(name)
        if type(value) is not int or not minimum <= value <= maximum:
            raise self.error(name, f"not an integer from {minimum} to {maximum}")
        return value

    def nested(self, name: str) -> Fields:
        """Return the JSON object in the field; raise MessageError if it holds none."""
        return Fields(f"{self._prefix}{name}", self._required(name))

    def objects(self, name: str, *, maximum: int) -> tuple[Fields, ...]:
        """Return the 1 to `maximum` objects in the field's array."""
        value = self._required(name)
        if not isinstance(value, list) or not 0 < len(value) <= maximum:
            raise self.error(name, f"not an array of 1 to {maximum} objects")
        return tuple(
            Fields(f"{self._prefix}{name}[{index}]", item) for index, item in enumerate(value)
        )

    def error(self, name: str, reason: str) -> MessageError:
        """Return the error that says what is wrong with a field."""
        return MessageError(f"{self._prefix}{name}: {reason}")

    def _required(self, name: str) -> object:
        value = self._values.get(name)
        if value is None:
            raise self.error(name, "missing")
        return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MessageError("a JSON key is given twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise MessageError(f"{name} is not JSON")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=to_base64)
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
