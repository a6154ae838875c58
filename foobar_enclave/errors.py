"""The errors that foobar_enclave raises.

Every text is one line that is fit for the requester: it says what was wrong, and holds no secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_MAX_TEXT: Final = 500


def one_line(text: object, *, secrets: Iterable[str] = ()) -> str:
    """Return `text` in printable ASCII, at most 500 characters, with each of `secrets` removed."""
    shown = str(text)
    for secret in filter(None, secrets):
        shown = shown.replace(secret, "[secret]")
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in shown)
    return shown if len(shown) <= _MAX_TEXT else shown[: _MAX_TEXT - 3] + "..."


class EnclaveError(Exception):
    """Base of every error of this package."""


class NsmError(EnclaveError):
    """The Nitro Secure Module did not do what it was asked."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the Nitro Secure Module failed at {request}: {reason}")


class NsmInvalidArgumentError(NsmError):
    """An argument of the request is invalid."""


class NsmInvalidIndexError(NsmError):
    """There is no PCR of that index."""


class NsmInvalidResponseError(NsmError):
    """The answer does not belong to the request, or lacks what it must hold."""


class NsmReadOnlyIndexError(NsmError):
    """The PCR is locked."""


class NsmInvalidOperationError(NsmError):
    """The module has not the capability that the request needs, or does not know it."""


class NsmBufferTooSmallError(NsmError):
    """The answer does not fit the buffer that was given for it."""


class NsmInputTooLargeError(NsmError):
    """The request, or a field of it, is longer than the module takes."""


class NsmInternalError(NsmError):
    """The module, its driver or its device failed, or its answer cannot be read."""


class NsmUnavailableError(NsmInternalError):
    """The module's device cannot be opened."""


NSM_ERRORS: Final[dict[str, type[NsmError]]] = {
    "InvalidArgument": NsmInvalidArgumentError,
    "InvalidIndex": NsmInvalidIndexError,
    "InvalidResponse": NsmInvalidResponseError,
    "ReadOnlyIndex": NsmReadOnlyIndexError,
    "InvalidOperation": NsmInvalidOperationError,
    "BufferTooSmall": NsmBufferTooSmallError,
    "InputTooLarge": NsmInputTooLargeError,
    "InternalError": NsmInternalError,
}
"""The variants of ErrorCode (aws-nitro-enclaves-nsm-api, src/api/mod.rs) but `Success`."""


class EntropyError(EnclaveError):
    """The kernel's entropy pool could not be fed, so no key is made."""


class DecryptionError(EnclaveError):
    """Something does not decrypt; one text for every cause, so that none can be told apart."""

    def __init__(self) -> None:
        super().__init__("the message does not decrypt")


class BusyError(EnclaveError):
    """There is no room for one more; nothing was done."""

    def __init__(self) -> None:
        super().__init__("the enclave is busy: try again later")


class RegionError(EnclaveError):
    """A region that has no AWS KMS, as far as this enclave knows."""


class DebugModeError(EnclaveError):
    """The enclave runs in debug mode, where its memory is not protected."""


class SandboxError(EnclaveError):
    """The program runs in a Nitro Sandbox, where PCR0 does not measure it."""


class KmsError(EnclaveError):
    """AWS KMS did not do what it was asked.

    Attributes:
        may_have_acted: whether KMS may have done it all the same.
    """

    may_have_acted = False


class KmsUnreachableError(KmsError):
    """No answer came from KMS; `sent` says whether the request may have reached it."""

    def __init__(self, operation: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"no answer from KMS to {operation}: {reason}")
        self.may_have_acted = sent


class KmsRefusedError(KmsError):
    """KMS answered with an error.

    Attributes:
        code: KMS's own error code, such as `AccessDeniedException`.
    """

    def __init__(self, operation: str, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"KMS refused {operation}: {code}: {message}")
        self.code = code
        self.may_have_acted = status >= 500  # a server error (RFC 9110 section 15.6)


class KmsAnswerError(KmsError):
    """KMS's answer is not what was asked for, so it is not attested."""

    may_have_acted = True


class UnattestedKeyError(EnclaveError):
    """A key was made, and what followed failed; the text names the key for its owner to delete."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"KMS key {key} was made but not attested, so delete it: {reason}")
