"""The Nitro Secure Module: CBOR requests in, CBOR responses out, over a bank of 32 PCRs.

Names and encoding are those of aws-nitro-enclaves-nsm-api (src/api/mod.rs); what that leaves open
(which error for what) follows the device that QEMU emulates (hw/virtio/virtio-nsm.c).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from typing import Final

import cbor2

from emulator.clock import Clock, utc_now
from emulator.documents import attestation_document
from emulator.image_measurements import ZERO
from emulator.pki import NitroChain, NitroPki
from foobar_enclave.nsm import REQUEST_MAX

MAX_PCRS: Final = 32
LOCKED_AT_START: Final = 16  # nsm-check.rs: 0 to 15 are locked when the enclave starts
RANDOM_BYTES: Final = 256
FIELD_MAX: Final = 1024  # user_data, nonce and public_key each (nsm-check.rs DATA_LEN)

_MAX_DEPTH: Final = 4
_U16_MAX: Final = 0xFFFF
# Genuine documents are at most 2 h 22 min younger than their three-hour certificate.
_REISSUE_AFTER: Final = timedelta(hours=2, minutes=22)


class _Refused(Exception):  # noqa: N818 - the answer to a request, not a failure of this program
    """An error response; its text is a variant of the API's ErrorCode."""


class EmulatedNsm:
    """One enclave's security module; answers one request at a time, as the kernel driver does."""

    def __init__(
        self,
        pki: NitroPki,
        *,
        module_id: str,
        pcrs: Mapping[int, bytes],
        clock: Clock = utc_now,
    ) -> None:
        """Make a module whose PCRs are `pcrs` (48 bytes each) and otherwise zero."""
        self._pki = pki
        self._module_id = module_id
        self._pcrs = [pcrs.get(index, ZERO) for index in range(MAX_PCRS)]
        self._locked = [index < LOCKED_AT_START for index in range(MAX_PCRS)]
        self._clock = clock
        self._chain: tuple[datetime, NitroChain] | None = None
        self._mutex = threading.Lock()
        self._handlers: dict[str, Callable[[dict[str, object]], object]] = {
            "DescribeNSM": self._describe_nsm,
            "DescribePCR": self._describe_pcr,
            "ExtendPCR": self._extend_pcr,
            "LockPCR": self._lock_pcr,
            "LockPCRs": self._lock_pcrs,
            "Attestation": self._attest,
            "GetRandom": lambda _: {"random": os.urandom(RANDOM_BYTES)},
        }

    def exchange(self, request: bytes) -> bytes:
        """Return the CBOR response to a CBOR request; every fault is an `Error` response."""
        try:
            name, fields = _parse(request)
            if name not in self._handlers:
                raise _Refused("InvalidOperation")
            with self._mutex:
                answer = self._handlers[name](fields)
        except _Refused as refused:
            return cbor2.dumps({"Error": str(refused)})
        return cbor2.dumps(name if answer is None else {name: answer})

    def _describe_nsm(self, _: dict[str, object]) -> object:
        return {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": self._module_id,
            "max_pcrs": MAX_PCRS,
            "locked_pcrs": [index for index in range(MAX_PCRS) if self._locked[index]],
            "digest": "SHA384",
        }

    def _describe_pcr(self, fields: dict[str, object]) -> object:
        index = _index(fields)
        return {"lock": self._locked[index], "data": self._pcrs[index]}

    def _extend_pcr(self, fields: dict[str, object]) -> object:
        index, data = self._unlocked(fields), fields.get("data")
        if not isinstance(data, bytes):
            raise _Refused("InvalidOperation")
        self._pcrs[index] = hashlib.sha384(self._pcrs[index] + data).digest()
        return {"data": self._pcrs[index]}

    def _lock_pcr(self, fields: dict[str, object]) -> None:
        self._locked[self._unlocked(fields)] = True

    def _lock_pcrs(self, fields: dict[str, object]) -> None:
        count = _index(fields, "range", maximum=MAX_PCRS)
        self._locked[:count] = [True] * count

    def _attest(self, fields: dict[str, object]) -> object:
        now = self._clock()
        # The same key and certificates until they near their end.
        if self._chain is None or not timedelta() <= now - self._chain[0] < _REISSUE_AFTER:
            self._chain = (now, self._pki.issue(self._module_id, now=now))
        document = attestation_document(
            self._chain[1],
            module_id=self._module_id,
            pcrs={index: pcr for index, pcr in enumerate(self._pcrs) if self._locked[index]},
            timestamp=now,
            user_data=_optional_bytes(fields, "user_data"),
            nonce=_optional_bytes(fields, "nonce"),
            public_key=_optional_bytes(fields, "public_key"),
        )
        return {"document": document}

    def _unlocked(self, fields: dict[str, object]) -> int:
        index = _index(fields)
        if self._locked[index]:
            raise _Refused("ReadOnlyIndex")
        return index


def _parse(request: bytes) -> tuple[str, dict[str, object]]:
    """Return the request's name and fields: a bare name, or a map of one name to its fields."""
    if len(request) > REQUEST_MAX:
        raise _Refused("InputTooLarge")
    stream = BytesIO(request)
    try:
        decoded = cbor2.CBORDecoder(
            stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True
        ).decode()
    except cbor2.CBORDecodeError:
        raise _Refused("InvalidOperation") from None
    if isinstance(decoded, str):
        decoded = {decoded: {}}
    if isinstance(decoded, dict) and len(decoded) == 1 and not stream.read():
        ((name, fields),) = decoded.items()
        if isinstance(name, str) and isinstance(fields, dict):
            return name, fields
    raise _Refused("InvalidOperation")


def _index(fields: dict[str, object], name: str = "index", *, maximum: int = MAX_PCRS - 1) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _U16_MAX:
        raise _Refused("InvalidOperation")
    if value > maximum:
        raise _Refused("InvalidIndex")
    return value


def _optional_bytes(fields: dict[str, object], name: str) -> bytes | None:
    value = fields.get(name)
    if not isinstance(value, bytes | None):
        raise _Refused("InvalidOperation")
    if value is not None and len(value) > FIELD_MAX:
        raise _Refused("InputTooLarge")
    return value
