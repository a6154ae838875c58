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
    """The Nitro Secure Module did not do what it was asked.

    Attributes:
        code: the ErrorCode of aws-nitro-enclaves-nsm-api (src/api/mod.rs) that says it best.
    """

    def __init__(self, request: str, reason: str, *, code: str = "InternalError") -> None:
        super().__init__(f"the Nitro Secure Module failed at {request}: {reason}")
        self.code = code


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


class DebugModeError(EnclaveError):
    """The enclave runs in debug mode, where its memory is not protected."""


class SandboxError(EnclaveError):
    """The program runs in a Nitro Sandbox, where PCR0 does not measure it."""


class KmsError(EnclaveError):
    """AWS KMS did not do what it was asked.

    Attributes:
        code: KMS's own error code, such as `AccessDeniedException`; empty if it sent none.
        may_have_acted: whether KMS may have done it all the same.
    """

    def __init__(self, text: str, *, code: str = "", may_have_acted: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.may_have_acted = may_have_acted


class UnattestedKeyError(EnclaveError):
    """A key was made, and what followed failed; the text names the key for its owner to delete."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"KMS key {key} was made but not attested, so delete it: {reason}")
