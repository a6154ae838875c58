"""Which enclave and which root a command trusts: from its options to a `Trust`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from foobar_instance.attestation import (
    Measurements,
    MeasurementsError,
    Partition,
    Verifier,
    packaged_root,
)
from foobar_instance.errors import UsageError
from foobar_instance.files import read_file
from foobar_instance.progress import Progress
from foobar_instance.trust import Trust

DEFAULT_MEASUREMENTS: Final = Path("foobar-enclave.measurements.json")

_MAX_ROOT: Final = 64 * 1024
# The image, its two parts, and who signed it; the others say where an enclave runs, or nothing.
_OF_THE_CODE: Final = frozenset({0, 1, 2, 8})
_PCR: Final = re.compile(r"([0-9]{1,2})=([0-9A-Fa-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """What the options say, before it is judged."""

    root_path: Path | None
    partition: Partition
    measurements: Path | None
    pcr0: str | None
    pcrs: Sequence[str]
    trust_any_enclave: bool
    allow_debug: bool


def make_trust(options: TrustOptions, progress: Progress) -> Trust:
    """What to trust; whatever weakens it is said.

    Raises:
        UsageError: nothing pins the enclave, or an option is malformed.
        FileError: the root can't be read.
    """
    if options.allow_debug:
        progress.warn("debug-mode enclaves are accepted: they prove nothing about their code")
    return Trust(
        verifier=Verifier(load_root(options.root_path, options.partition, progress)),
        measurements=_measurements(options, progress),
        allow_debug=options.allow_debug,
    )


def load_root(path: Path | None, partition: Partition, progress: Progress) -> x509.Certificate:
    """The root certificate to trust; one that is not AWS's for the partition is said.

    Raises:
        UsageError: the file holds no certificate.
        FileError: the file can't be read.
    """
    packaged = packaged_root(partition)
    if path is None:
        return packaged
    try:
        root = x509.load_pem_x509_certificate(read_file(path, limit=_MAX_ROOT))
    except (ValueError, x509.InvalidVersion) as error:
        raise UsageError(f"{path} holds no certificate in PEM") from error
    if root != packaged:
        progress.warn(f"trusting the root in {path} instead of AWS's")
    return root


def _measurements(options: TrustOptions, progress: Progress) -> Measurements | None:
    try:
        expected = _expected(options)
    except MeasurementsError as error:
        raise UsageError(str(error)) from error
    if expected and options.trust_any_enclave:
        raise UsageError("--trust-any-enclave contradicts the measurements that are given")
    if expected:
        if not _OF_THE_CODE & expected.keys():
            progress.warn("the expected registers say nothing about the enclave's code: add --pcr0")
        return Measurements(expected)
    if options.trust_any_enclave:
        progress.warn("any enclave is trusted, whatever its code: no measurement is compared")
        return None
    raise UsageError(
        "no measurement pins the enclave: give --measurements FILE or --pcr0 HEX (what "
        "build-and-run-enclave.sh or the enclave's publisher printed)"
    )


def _expected(options: TrustOptions) -> dict[int, bytes]:
    """Every expected register; a register that is given twice must be given alike."""
    sources: list[Measurements] = []
    path = options.measurements
    given = path or options.pcr0 or options.pcrs or options.trust_any_enclave
    if not given and DEFAULT_MEASUREMENTS.exists():
        path = DEFAULT_MEASUREMENTS
    if path is not None:
        sources.append(Measurements.from_nitro_cli_json(path))
    if options.pcr0 is not None:
        sources.append(Measurements.from_mapping({0: options.pcr0}))
    sources += [Measurements.from_mapping(_pcr(text)) for text in options.pcrs]
    expected: dict[int, bytes] = {}
    for source in sources:
        for index, value in source.pcrs.items():
            if expected.setdefault(index, value) != value:
                raise MeasurementsError(f"PCR{index} is given twice, with different values")
    return expected


def _pcr(text: str) -> dict[int, str]:
    match = _PCR.fullmatch(text)
    if match is None:
        raise MeasurementsError(f"--pcr takes N=HEX, not {text!r}")
    return {int(match[1]): match[2]}
