"""The measurements that a verifier expects, and how they are compared with a document's."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from foobar_instance.attestation._document import Attestation
from foobar_instance.attestation._rules import MAX_PCRS, MEASUREMENTS, SANDBOX_PCR17
from foobar_instance.attestation.errors import MeasurementsError
from foobar_shared.encoding import parse_json
from foobar_shared.errors import MessageError
from foobar_shared.key_policy import PCR_BYTES, SANDBOX_PCR, is_debug_mode

_MAX_FILE: Final = 64 * 1024
_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * PCR_BYTES}}}", re.ASCII)
_PCR_NAME: Final = re.compile(r"PCR(0|[1-9][0-9]?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Measurements:
    """The PCRs that an enclave is expected to have. All of them must match.

    Attributes:
        pcrs: index to 48 bytes, at least one; kept sorted and read-only.

    Raises:
        MeasurementsError: no PCR, an index that Nitro has not, or a value that is not 48 bytes.
    """

    pcrs: Mapping[int, bytes]

    def __post_init__(self) -> None:
        if not self.pcrs:
            raise MeasurementsError("no PCR to expect: name at least PCR0")
        for index, value in self.pcrs.items():
            if type(index) is not int or not 0 <= index < MAX_PCRS:
                raise MeasurementsError(f"PCR{index}: there are only PCR0 to PCR{MAX_PCRS - 1}")
            if len(value) != PCR_BYTES:
                raise MeasurementsError(f"PCR{index}: not {PCR_BYTES} bytes")
        object.__setattr__(self, "pcrs", MappingProxyType(dict(sorted(self.pcrs.items()))))

    @classmethod
    def from_mapping(cls, pcrs: Mapping[int, str]) -> Measurements:
        """Return the measurements of a mapping from index to 96 hexadecimal digits of either case.

        Raises:
            MeasurementsError: empty, an unknown index, or not 96 hexadecimal digits.
        """
        return cls({index: _from_hex(f"PCR{index}", value) for index, value in pcrs.items()})

    @classmethod
    def from_nitro_cli_json(cls, path: str | os.PathLike[str]) -> Measurements:
        """Return the measurements in a file of the JSON that `nitro-cli` prints.

        The commands build-enclave, describe-eif and, with one enclave, describe-enclaves print it.

        Raises:
            MeasurementsError: the file can't be read, is not such JSON, tells of a failed check, or
                names no PCR0 or an all-zero one, which every debug-mode enclave has
                (`from_mapping` takes that).
        """
        path = Path(path)
        fields = _measurements_field(path)
        pcrs = dict(_pcr_fields(path, fields))
        if 0 not in pcrs:
            raise MeasurementsError(f"{path}: no PCR0 in it")
        values = {index: _from_hex(f"{path}: PCR{index}", pcrs[index]) for index in pcrs}
        if is_debug_mode(values[0]):
            raise MeasurementsError(f"{path}: PCR0 is all zero, which is no image's but debug mode")
        return cls(values)

    def check(self, attestation: Attestation) -> None:
        """Check that a document has every expected PCR; values are compared in constant time.

        Raises:
            MeasurementMismatch: names each PCR that differs or that the document lacks; also where
                the document has a PCR17 and none is expected.
        """
        wrong = [
            f"PCR{index} is {_found(attestation.pcrs.get(index))}, not {expected.hex()}"
            for index, expected in self.pcrs.items()
            if not hmac.compare_digest(attestation.pcrs.get(index, b""), expected)
        ]
        if wrong:
            raise MEASUREMENTS.broken("; ".join(wrong))
        if attestation.is_sandbox and SANDBOX_PCR not in self.pcrs:
            raise SANDBOX_PCR17.broken(
                "none is expected: PCR0 does not tell one sandbox from others"
            )


def _measurements_field(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise MeasurementsError(f"{path}: {error.strerror}") from error
    if len(text) > _MAX_FILE:
        raise MeasurementsError(f"{path}: longer than {_MAX_FILE} bytes")
    try:
        printed = parse_json(text)
    except MessageError as error:
        raise MeasurementsError(f"{path}: not what nitro-cli prints: {error}") from error
    if isinstance(printed, list):
        if len(printed) != 1:
            raise MeasurementsError(f"{path}: {len(printed)} enclaves in it, not one")
        printed = printed[0]
    fields = printed.get("Measurements") if isinstance(printed, dict) else None
    if not isinstance(printed, dict) or not isinstance(fields, dict):
        raise MeasurementsError(f"{path}: not what nitro-cli prints")
    for check in ("CheckCRC", "SignatureCheck"):  # of describe-eif
        if printed.get(check) not in (None, True):
            raise MeasurementsError(f"{path}: {check} is not true: the image is damaged or forged")
    return fields


def _pcr_fields(path: Path, fields: dict[str, object]) -> Iterator[tuple[int, object]]:
    """Yield index and value of each PCR; refuse a misspelt name, which would go unchecked."""
    for name, value in fields.items():
        match = _PCR_NAME.fullmatch(name)
        if match and int(match[1]) < MAX_PCRS:
            yield int(match[1]), value
        elif name.upper().startswith("PCR"):
            raise MeasurementsError(f"{path}: {name[:20]!a} is not the name of a PCR")


def _from_hex(what: str, value: object) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise MeasurementsError(f"{what}: not {2 * PCR_BYTES} hexadecimal digits")
    return bytes.fromhex(value)


def _found(value: bytes | None) -> str:
    return "missing" if value is None else value.hex()
