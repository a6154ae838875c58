"""The Nitro Secure Module: CBOR requests in, CBOR responses out, over a bank of 32 registers.

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

from emulator.channel import REQUEST_MAX
from emulator.clock import Clock, utc_now
from emulator.documents import attestation_document
from emulator.measurements import ZERO
from emulator.pki import NitroChain, NitroPki

MAX_PCRS: Final = 32
LOCKED_AT_START: Final = 16  # nsm-check.rs: 0 to 15 are locked when the enclave starts
RANDOM_BYTES: Final = 256
FIELD_MAX: Final = 1024  # user_data, nonce and public_key each (nsm-check.rs DATA_LEN)

_MAX_DEPTH: Final = 4
_U16_MAX: Final = 0xFFFF
# Genuine documents are at most 2 h 22 min younger than their three-hour certificate.
_REISSUE_AFTER: Final = timedelta(hours=2, minutes=22)


class _Refused(Exception):  # noqa: N818 - the answer to a request, not a failure of this program
    """An error response; `name` is a variant of the API's ErrorCode."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class EmulatedNsm:
    """One enclave's security module; answers one request at a time, as the kernel driver does."""

    def __init__(
        self,
        pki: NitroPki,
        *,
        module_id: str,
        pcrs: Mapping[int, bytes],
        clock: Clock = utc_now,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """A module whose registers hold `pcrs` (48 bytes each) and otherwise zeros."""
        self._pki = pki
        self._module_id = module_id
        self._pcrs = [pcrs.get(index, ZERO) for index in range(MAX_PCRS)]
        self._locked = [index < LOCKED_AT_START for index in range(MAX_PCRS)]
        self._clock = clock
        self._random = random
        self._chain: tuple[datetime, NitroChain] | None = None
        self._mutex = threading.Lock()

    @property
    def pcrs(self) -> dict[int, bytes]:
        """The locked registers, which are those that documents hold."""
        return {index: value for index, value in enumerate(self._pcrs) if self._locked[index]}

    def exchange(self, request: bytes) -> bytes:
        """The CBOR response to a CBOR request; every fault is an `Error` response."""
        try:
            with self._mutex:
                return cbor2.dumps(self._answer(request))
        except _Refused as refused:
            return cbor2.dumps({"Error": refused.name})

    def _answer(self, request: bytes) -> object:
        name, fields = _parse(request)
        handlers: dict[str, Callable[[dict[str, object]], object]] = {
            "DescribeNSM": self._describe_nsm,
            "DescribePCR": self._describe_pcr,
            "ExtendPCR": self._extend_pcr,
            "LockPCR": self._lock_pcr,
            "LockPCRs": self._lock_pcrs,
            "Attestation": self._attest,
            "GetRandom": self._get_random,
        }
        handler = handlers.get(name)
        if handler is None:
            raise _Refused("InvalidOperation")
        return handler(fields)

    def _describe_nsm(self, _: dict[str, object]) -> object:
        description = {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": self._module_id,
            "max_pcrs": MAX_PCRS,
            "locked_pcrs": [index for index in range(MAX_PCRS) if self._locked[index]],
            "digest": "SHA384",
        }
        return {"DescribeNSM": description}

    def _describe_pcr(self, fields: dict[str, object]) -> object:
        index = _index(fields)
        return {"DescribePCR": {"lock": self._locked[index], "data": self._pcrs[index]}}

    def _extend_pcr(self, fields: dict[str, object]) -> object:
        index = self._unlocked(fields)
        data = fields.get("data")
        if not isinstance(data, bytes):
            raise _Refused("InvalidOperation")
        self._pcrs[index] = hashlib.sha384(self._pcrs[index] + data).digest()
        return {"ExtendPCR": {"data": self._pcrs[index]}}

    def _lock_pcr(self, fields: dict[str, object]) -> object:
        self._locked[self._unlocked(fields)] = True
        return "LockPCR"

    def _lock_pcrs(self, fields: dict[str, object]) -> object:
        count = _number(fields, "range")
        if count > MAX_PCRS:
            raise _Refused("InvalidIndex")
        for index in range(count):
            self._locked[index] = True
        return "LockPCRs"

    def _attest(self, fields: dict[str, object]) -> object:
        now = self._clock()
        document = attestation_document(
            self._certified(now),
            module_id=self._module_id,
            pcrs=self.pcrs,
            timestamp=now,
            user_data=_optional_bytes(fields, "user_data"),
            nonce=_optional_bytes(fields, "nonce"),
            public_key=_optional_bytes(fields, "public_key"),
        )
        return {"Attestation": {"document": document}}

    def _get_random(self, _: dict[str, object]) -> object:
        return {"GetRandom": {"random": self._random(RANDOM_BYTES)}}

    def _unlocked(self, fields: dict[str, object]) -> int:
        index = _index(fields)
        if self._locked[index]:
            raise _Refused("ReadOnlyIndex")
        return index

    def _certified(self, now: datetime) -> NitroChain:
        """The module's key and certificates, the same ones until they near their end."""
        if self._chain is None or not timedelta() <= now - self._chain[0] < _REISSUE_AFTER:
            self._chain = (now, self._pki.issue(self._module_id, now=now))
        return self._chain[1]


def _parse(request: bytes) -> tuple[str, dict[str, object]]:
    """The request's name and fields: a bare name, or a map of one name to a map of fields."""
    if len(request) > REQUEST_MAX:
        raise _Refused("InputTooLarge")
    stream = BytesIO(request)
    try:
        decoded = cbor2.CBORDecoder(
            stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True
        ).decode()
    except cbor2.CBORDecodeError:
        raise _Refused("InvalidOperation") from None
    if stream.read():
        raise _Refused("InvalidOperation")
    if isinstance(decoded, str):
        return decoded, {}
    if isinstance(decoded, dict) and len(decoded) == 1:
        ((name, fields),) = decoded.items()
        if isinstance(name, str) and isinstance(fields, dict):
            return name, {key: value for key, value in fields.items() if isinstance(key, str)}
    raise _Refused("InvalidOperation")


def _number(fields: dict[str, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _U16_MAX:
        raise _Refused("InvalidOperation")
    return value


def _index(fields: dict[str, object]) -> int:
    index = _number(fields, "index")
    if index >= MAX_PCRS:
        raise _Refused("InvalidIndex")
    return index


def _optional_bytes(fields: dict[str, object], name: str) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise _Refused("InvalidOperation")
    if len(value) > FIELD_MAX:
        raise _Refused("InputTooLarge")
    return value
