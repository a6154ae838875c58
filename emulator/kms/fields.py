"""The members of a request, taken by type and within the bounds of KMS's API model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from emulator.kms.errors import KmsError, validation_error
from foobar_shared.encoding import from_base64, parse_json_object
from foobar_shared.errors import MessageError


class Fields:
    """One JSON structure of a request."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """The request's body.

        Raises:
            KmsError: SerializationException where it is not one JSON object.
        """
        try:
            return cls(parse_json_object(body))
        except MessageError as error:
            raise KmsError("SerializationException", f"the request's body is {error}") from None

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._values.get(name) is not None

    def text(self, name: str, *, maximum: int) -> str:
        """A required text of 1 to `maximum` characters."""
        value = self._required(name)
        if not isinstance(value, str):
            raise _wrong_type(name, "text")
        if not 1 <= len(value) <= maximum:
            raise _constraint(name, f"Member must have length between 1 and {maximum}")
        return value

    def optional_text(self, name: str, *, maximum: int) -> str | None:
        """A text of 1 to `maximum` characters, or None."""
        return self.text(name, maximum=maximum) if self.has(name) else None

    def choice(self, name: str, choices: Collection[str]) -> str:
        """A required text that is one of `choices`."""
        value = self.text(name, maximum=256)
        if value not in choices:
            listed = ", ".join(sorted(choices))
            raise _constraint(name, f"Member must satisfy enum value set: [{listed}]")
        return value

    def blob(self, name: str, *, maximum: int) -> bytes:
        """Required bytes, 1 to `maximum`, from their base64."""
        value = self._required(name)
        if not isinstance(value, str):
            raise _wrong_type(name, "a blob")
        try:
            data = from_base64(value)
        except MessageError:
            raise _wrong_type(name, "a blob") from None
        if not 1 <= len(data) <= maximum:
            raise _constraint(name, f"Member must have length between 1 and {maximum}")
        return data

    def flag(self, name: str) -> bool:
        """A boolean, false where absent."""
        value = self._values.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise _wrong_type(name, "a boolean")

    def integer(self, name: str, *, minimum: int, maximum: int, default: int) -> int:
        """An integer from `minimum` to `maximum`."""
        value = self._values.get(name, default)
        if type(value) is not int:
            raise _wrong_type(name, "an integer")
        if not minimum <= value <= maximum:
            raise _constraint(name, f"Member must be between {minimum} and {maximum}")
        return value

    def nested(self, name: str) -> Fields:
        """A required structure."""
        value = self._required(name)
        if not isinstance(value, dict):
            raise _wrong_type(name, "a structure")
        return Fields(value)

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty where absent."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _wrong_type(name, "a list of texts")
        return value

    def items(self, name: str) -> list[object]:
        """A list of anything, empty where absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, list):
            raise _wrong_type(name, "a list")
        return value or []

    def _required(self, name: str) -> object:
        value = self._values.get(name)
        if value is None:
            raise _constraint(name, "Member must not be null")
        return value


def _constraint(name: str, constraint: str) -> KmsError:
    member = name[0].lower() + name[1:]
    return validation_error(
        f"1 validation error detected: Value at '{member}' failed to satisfy constraint: "
        f"{constraint}"
    )


def _wrong_type(name: str, expected: str) -> KmsError:
    return KmsError("SerializationException", f"{name} is not {expected}")
