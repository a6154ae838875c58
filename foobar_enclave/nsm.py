"""The Nitro Secure Module: its requests and responses in CBOR, over the ioctl of `/dev/nsm`.

Names and encoding are those of aws-nitro-enclaves-nsm-api (src/api/mod.rs). In responses, keys may
come in any order and with further ones, and maps may be of indefinite length.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Protocol, TypeVar

import cbor2

from foobar_enclave.errors import NsmError, one_line

REQUEST_MAX: Final = 0x1000  # linux/nsm.h NSM_REQUEST_MAX_SIZE
RESPONSE_MAX: Final = 0x3000  # linux/nsm.h NSM_RESPONSE_MAX_SIZE
NSM_IOCTL_RAW: Final = 0xC0200A00  # linux/nsm.h _IOWR(NSM_MAGIC, 0x0, struct nsm_raw)

_MAX_DEPTH: Final = 8  # the deepest response of the API has 3 levels
_U16_MAX: Final = 0xFFFF  # PCR indices are u16 in the API
_T = TypeVar("_T", int, bool, str, bytes)


class NsmTransport(Protocol):
    """Carries one request to the module and its response back, both raw CBOR."""

    def exchange(self, request: bytes) -> bytes:
        """Return the response to `request` (at most 4096 bytes); raise OSError on failure."""
        ...


@dataclass(frozen=True, slots=True)
class NsmDescription:
    """What the module says about itself; `locked_pcrs` are PCR indices in rising order."""

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
        """Open `path`, for as long as the process lives; raise NsmError if that fails."""
        try:
            self._device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            reason = f"{path}: {os.strerror(error.errno or 0)}; this program runs in an enclave"
            raise NsmError("opening the device", one_line(reason)) from None

    def exchange(self, request: bytes) -> bytes:
        """Return the response to `request`; raise OSError as the driver does."""
        sent = ctypes.create_string_buffer(request)
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

    Every method raises `NsmError`.
    """

    def __init__(self, path: str = "/dev/nsm", *, transport: NsmTransport | None = None) -> None:
        """Use the module behind the device at `path`, or behind `transport`."""
        self._transport = IoctlTransport(path) if transport is None else transport

    def describe(self) -> NsmDescription:
        """Return the module's version, id, digest and number of PCRs."""
        answer = self._ask("DescribeNSM")
        return NsmDescription(
            version_major=answer.take("version_major", int),
            version_minor=answer.take("version_minor", int),
            version_patch=answer.take("version_patch", int),
            module_id=answer.take("module_id", str),
            max_pcrs=answer.take("max_pcrs", int),
            locked_pcrs=answer.take_indices("locked_pcrs"),
            digest=answer.take("digest", str),
        )

    def describe_pcr(self, index: int) -> Pcr:
        """Return the PCR `index` (0 to 31 in today's modules)."""
        if not 0 <= index <= _U16_MAX:
            raise NsmError("DescribePCR", "the index is no 16-bit number", code="InvalidIndex")
        answer = self._ask("DescribePCR", {"index": index})
        return Pcr(lock=answer.take("lock", bool), data=answer.take("data", bytes))

    def attest(
        self,
        *,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """Return an attestation document (raw COSE_Sign1) that holds the given fields.

        Each may have up to 1024 bytes, all three at once. None leaves a field null.
        """
        fields: dict[str, object] = {
            "user_data": user_data,
            "nonce": nonce,
            "public_key": public_key,
        }
        return self._ask("Attestation", fields).take("document", bytes)

    def random(self) -> bytes:
        """Return fresh random bytes, 256 of today's modules."""
        return self._ask("GetRandom").take("random", bytes)

    def _ask(self, name: str, fields: dict[str, object] | None = None) -> _Answer:
        request = cbor2.dumps(name if fields is None else {name: fields})
        if len(request) > REQUEST_MAX:
            reason = f"the request is longer than {REQUEST_MAX} bytes"
            raise NsmError(name, reason, code="InputTooLarge")
        try:
            response = self._transport.exchange(request)
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "unknown error")
            raise NsmError(name, f"its driver says {reason}") from None
        answer = _decode(name, response)
        if not isinstance(answer, dict) or len(answer) != 1:
            raise NsmError(name, "its answer is no map of one entry")
        code, fields = answer.get("Error"), answer.get(name)
        if isinstance(code, str):
            raise NsmError(name, one_line(code), code=code)
        if not isinstance(fields, dict):
            raise NsmError(name, "its answer is to another request")
        return _Answer(name, fields)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The fields of the answer to one request, taken by name and type."""

    request: str
    fields: dict[str, object]

    def take(self, name: str, kind: type[_T]) -> _T:
        """Return a field of one type: text and bytes that are not empty, or a number or flag."""
        value = self.fields.get(name)
        if type(value) is not kind or value in ("", b""):
            raise self._wrong(name)
        return value

    def take_indices(self, name: str) -> tuple[int, ...]:
        """Return the numbers of an array, sorted."""
        value = self.fields.get(name)
        # An array of indefinite length comes as a list, one of definite length as a tuple.
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            raise self._wrong(name)
        return tuple(sorted(value))

    def _wrong(self, name: str) -> NsmError:
        return NsmError(self.request, f"its answer has no valid {name}")


def _decode(request: str, response: bytes) -> object:
    if len(response) > RESPONSE_MAX:
        raise NsmError(request, f"its answer is longer than {RESPONSE_MAX} bytes")
    stream = BytesIO(response)
    try:
        decoded: object = cbor2.CBORDecoder(
            stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False
        ).decode()
    except Exception as error:  # the library's tag decoders do not bound what they raise
        raise NsmError(request, "its answer is not valid CBOR") from error
    if stream.read(1):
        raise NsmError(request, "bytes follow its answer")
    return decoded
