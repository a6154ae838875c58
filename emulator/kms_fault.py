"""KMS's refusals: an error code that clients know from AWS, a text, and the HTTP status."""

from __future__ import annotations

from emulator.errors import EmulatorError


class KmsFault(EmulatorError):  # noqa: N818 - an answer, not a failure of this program
    """An error response of KMS; `code` is what botocore maps (`AccessDeniedException`, ...)."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> KmsFault:
    """Return the refusal of a request that no state of the key could make valid."""
    return KmsFault("ValidationException", message)


def malformed_policy(message: str) -> KmsFault:
    """Return the refusal of a key policy."""
    return KmsFault("MalformedPolicyDocumentException", message)


def unsupported(message: str) -> KmsFault:
    """Return the refusal of what KMS has and this emulator has not."""
    return KmsFault("UnsupportedOperationException", f"{message} (not offered by the emulator)")
