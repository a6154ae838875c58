"""The errors that foobar_enclave raises.

Every text is one line that is fit for the requester: it says what was wrong, and holds no secret.
"""

from __future__ import annotations

from typing import ClassVar, Final


class EnclaveError(Exception):
    """Base of every error of this package."""


class NsmError(EnclaveError):
    """The Nitro Secure Module did not do what it was asked.

    Attributes:
        code: the variant of ErrorCode (aws-nitro-enclaves-nsm-api, src/api/mod.rs).
    """

    code: ClassVar[str] = "InternalError"

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the Nitro Secure Module failed at {request}: {reason}")


class NsmInvalidArgumentError(NsmError):
    """An argument of the request is invalid."""

    code = "InvalidArgument"


class NsmInvalidIndexError(NsmError):
    """There is no register of that index."""

    code = "InvalidIndex"


class NsmInvalidResponseError(NsmError):
    """The answer does not belong to the request, or lacks what it must hold."""

    code = "InvalidResponse"


class NsmReadOnlyIndexError(NsmError):
    """The register is locked."""

    code = "ReadOnlyIndex"


class NsmInvalidOperationError(NsmError):
    """The module has not the capability that the request needs, or does not know it."""

    code = "InvalidOperation"


class NsmBufferTooSmallError(NsmError):
    """The answer does not fit the buffer that was given for it."""

    code = "BufferTooSmall"


class NsmInputTooLargeError(NsmError):
    """The request, or a field of it, is longer than the module takes."""

    code = "InputTooLarge"


class NsmInternalError(NsmError):
    """The module, its driver or its device failed."""

    code = "InternalError"


class NsmUndecodableError(NsmInternalError):
    """The answer is not CBOR, or not as the API writes it; AWS's library says InternalError."""


class NsmUnavailableError(NsmInternalError):
    """The module's device cannot be opened."""


NSM_ERRORS: Final[dict[str, type[NsmError]]] = {
    error.code: error
    for error in (
        NsmInvalidArgumentError,
        NsmInvalidIndexError,
        NsmInvalidResponseError,
        NsmReadOnlyIndexError,
        NsmInvalidOperationError,
        NsmBufferTooSmallError,
        NsmInputTooLargeError,
        NsmInternalError,
    )
}
"""Every variant of ErrorCode but `Success`, which is none."""


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


class KmsError(EnclaveError):
    """AWS KMS did not do what it was asked."""


class KmsUnreachableError(KmsError):
    """No answer came from KMS.

    Attributes:
        sent: whether the request may have reached KMS all the same.
    """

    def __init__(self, operation: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"no answer from KMS to {operation}: {reason}")
        self.sent = sent


class KmsRefusedError(KmsError):
    """KMS answered with an error.

    Attributes:
        code: KMS's own error code, such as `AccessDeniedException`.
        failed: whether KMS says that it failed (HTTP status 5xx), and may have acted all the same.
    """

    def __init__(self, operation: str, code: str, message: str, *, failed: bool = False) -> None:
        super().__init__(f"KMS refused {operation}: {code}: {message}")
        self.code = code
        self.failed = failed


class KmsAnswerError(KmsError):
    """KMS's answer is not what was asked for, so it is not attested."""


class UnattestedKeyError(EnclaveError):
    """A key was made, and what followed failed; the text names the key for its owner to delete."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"KMS key {key} was made but not attested, so delete it: {reason}")
