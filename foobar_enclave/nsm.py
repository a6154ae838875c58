"""The Nitro Secure Module: its requests and responses in CBOR, over the ioctl of `/dev/nsm`.

Names and encoding are those of aws-nitro-enclaves-nsm-api (src/api/mod.rs). The encoder writes
the bytes that AWS's own library writes; the decoder takes what AWS's newer encoders may write too
(keys in any order, further fields, maps of indefinite length).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Protocol

import cbor2

from foobar_enclave.errors import (
    NSM_ERRORS,
    NsmInputTooLargeError,
    NsmInternalError,
    NsmInvalidIndexError,
    NsmInvalidResponseError,
    NsmUnavailableError,
    NsmUndecodableError,
)
from foobar_enclave.text import one_line

REQUEST_MAX: Final = 0x1000  # linux/nsm.h NSM_REQUEST_MAX_SIZE
RESPONSE_MAX: Final = 0x3000  # linux/nsm.h NSM_RESPONSE_MAX_SIZE
NSM_IOCTL_RAW: Final = 0xC0200A00  # linux/nsm.h _IOWR(NSM_MAGIC, 0x0, struct nsm_raw)

_MAX_DEPTH: Final = 8  # the deepest response of the API has 3 levels
_U16_MAX: Final = 0xFFFF  # register indices are u16 in the API


class NsmTransport(Protocol):
    """Carries one request to the module and its response back, both raw CBOR."""

    def exchange(self, request: bytes) -> bytes:
        """The response to `request` (at most 4096 bytes).

        Raises:
            OSError: the device failed; EMSGSIZE where the request is too long for it.
        """
        ...


@dataclass(frozen=True, slots=True)
class NsmDescription:
    """What the module says about itself; `locked_pcrs` are register indices in rising order."""

    version_major: int
    version_minor: int
    version_patch: int
    module_id: str
    max_pcrs: int
    locked_pcrs: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Pcr:
    """A platform configuration register: `data` is a digest, 48 bytes under SHA-384."""

    lock: bool
    data: bytes


class _IoVec(ctypes.Structure):
    """`struct nsm_iovec` of linux/nsm.h."""

    _fields_ = (("addr", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Raw(ctypes.Structure):
    """`struct nsm_raw` of linux/nsm.h."""

    _fields_ = (("request", _IoVec), ("response", _IoVec))


class IoctlTransport:
    """The kernel's driver, which takes one request at a time (drivers/misc/nsm.c)."""

    def __init__(self, path: str) -> None:
        """Opens `path`.

        Raises:
            NsmUnavailableError: it is not there, or may not be opened.
        """
        try:
            self._device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            reason = f"{path}: {os.strerror(error.errno or 0)}; this program runs in an enclave"
            raise NsmUnavailableError("opening the device", one_line(reason)) from None

    def __del__(self) -> None:
        if hasattr(self, "_device"):
            os.close(self._device)

    def exchange(self, request: bytes) -> bytes:
        """The response to `request`; raises OSError as the driver does."""
        sent = ctypes.create_string_buffer(request, max(len(request), 1))
        # The driver cuts a response that is longer than the buffer, and does not say so.
        received = ctypes.create_string_buffer(RESPONSE_MAX)
        message = _Raw(
            request=_IoVec(ctypes.addressof(sent), len(request)),
            response=_IoVec(ctypes.addressof(received), RESPONSE_MAX),
        )
        fcntl.ioctl(self._device, NSM_IOCTL_RAW, message)
        return received.raw[: message.response.len]


class NsmDevice:
    """What the enclave asks of its Nitro Secure Module. Safe to use from several threads.

    Every method raises `NsmError`, or the subclass of it that names the module's error.
    """

    def __init__(self, path: str = "/dev/nsm", *, transport: NsmTransport | None = None) -> None:
        """The module behind the device at `path`, or behind `transport`.

        Raises:
            NsmUnavailableError: the device cannot be opened.
        """
        self._transport = IoctlTransport(path) if transport is None else transport

    def describe(self) -> NsmDescription:
        """The module's version, id, digest and number of registers."""
        answer = self._ask("DescribeNSM")
        return NsmDescription(
            version_major=answer.number("version_major"),
            version_minor=answer.number("version_minor"),
            version_patch=answer.number("version_patch"),
            module_id=answer.text("module_id"),
            max_pcrs=answer.number("max_pcrs"),
            locked_pcrs=answer.numbers("locked_pcrs"),
            digest=answer.text("digest"),
        )

    def describe_pcr(self, index: int) -> Pcr:
        """The register `index` (0 to 31 in today's modules)."""
        if not 0 <= index <= _U16_MAX:
            raise NsmInvalidIndexError("DescribePCR", "the index is no 16-bit number")
        answer = self._ask("DescribePCR", {"index": index})
        return Pcr(lock=answer.flag("lock"), data=answer.data("data"))

    def attest(
        self,
        *,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """An attestation document (raw COSE_Sign1) that holds the given fields.

        Each may have up to 1024 bytes, all three at once. None leaves a field null.
        """
        fields: dict[str, object] = {
            "user_data": user_data,
            "nonce": nonce,
            "public_key": public_key,
        }
        return self._ask("Attestation", fields).data("document")

    def random(self) -> bytes:
        """Fresh random bytes, 1 to 256 of them."""
        answer = self._ask("GetRandom").data("random")
        if len(answer) > 256:
            raise NsmInvalidResponseError("GetRandom", "more than 256 bytes")
        return answer

    def _ask(self, name: str, fields: dict[str, object] | None = None) -> _Answer:
        request = cbor2.dumps(name if fields is None else {name: fields})
        if len(request) > REQUEST_MAX:
            raise NsmInputTooLargeError(name, f"the request is longer than {REQUEST_MAX} bytes")
        try:
            response = self._transport.exchange(request)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise NsmInputTooLargeError(name, "its driver takes no longer request") from None
            reason = errno.errorcode.get(error.errno or 0, "unknown error")
            raise NsmInternalError(name, f"its driver says {reason}") from None
        return _answer(name, _decode(name, response))


class _Answer:
    """The fields of one response, taken by type."""

    def __init__(self, request: str, fields: dict[object, object]) -> None:
        self._request = request
        self._fields = fields

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if type(value) is not int or value < 0:
            raise self._wrong(name)
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self._fields.get(name)
        # An array of indefinite length comes as a list, one of definite length as a tuple.
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            raise self._wrong(name)
        return tuple(sorted(value))

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str) or not value:
            raise self._wrong(name)
        return value

    def data(self, name: str) -> bytes:
        value = self._fields.get(name)
        if not isinstance(value, bytes) or not value:
            raise self._wrong(name)
        return value

    def flag(self, name: str) -> bool:
        value = self._fields.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def _wrong(self, name: str) -> NsmInvalidResponseError:
        return NsmInvalidResponseError(self._request, f"its answer has no valid {name}")


def _answer(request: str, decoded: object) -> _Answer:
    """The fields of the response to `request`, which is a map of the request's name to them."""
    if not isinstance(decoded, dict) or len(decoded) != 1:
        raise NsmInvalidResponseError(request, "its answer is to another request")
    ((name, fields),) = decoded.items()
    if name == "Error":
        error = NSM_ERRORS.get(fields) if isinstance(fields, str) else None
        if error is None:
            raise NsmUndecodableError(request, "it answers with an unknown error")
        raise error(request, error.code)
    if name != request or not isinstance(fields, dict):
        raise NsmInvalidResponseError(request, "its answer is to another request")
    return _Answer(request, fields)


def _decode(request: str, response: bytes) -> object:
    if len(response) > RESPONSE_MAX:
        raise NsmUndecodableError(request, f"its answer is longer than {RESPONSE_MAX} bytes")
    stream = BytesIO(response)
    try:
        decoded: object = cbor2.CBORDecoder(
            stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False
        ).decode()
    except Exception as error:  # the library's tag decoders do not bound what they raise
        raise NsmUndecodableError(request, "its answer is not valid CBOR") from error
    if stream.read(1):
        raise NsmUndecodableError(request, "bytes follow its answer")
    return decoded
