"""KMS's refusals, with the codes and the wording that clients know from AWS."""

from __future__ import annotations

from emulator.errors import EmulatorError


class KmsError(EmulatorError):
    """An error response of KMS.

    Attributes:
        code: the error code that botocore maps (`AccessDeniedException`, ...).
        status: the HTTP status, 400 for all but a few.
    """

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def validation_error(message: str) -> KmsError:
    """A request that no state of the key could make valid."""
    return KmsError("ValidationException", message)


def malformed_policy(message: str) -> KmsError:
    """A key policy that is refused when it is set."""
    return KmsError("MalformedPolicyDocumentException", message)


def unsupported(message: str) -> KmsError:
    """Something that KMS has and this emulator has not."""
    return KmsError("UnsupportedOperationException", f"{message} (not offered by the emulator)")
