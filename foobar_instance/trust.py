"""What a command trusts: from options to a root and pinned PCRs, and documents checked by both."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, get_args

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    Measurements,
    MeasurementsError,
    NonceMismatch,
    Partition,
    Verifier,
    packaged_root,
    parse_attestation,
)
from foobar_instance.errors import NotVerifiedError, UsageError
from foobar_instance.files import read_file
from foobar_instance.terminal import Progress
from foobar_shared.claims import KeyClaims, parse_key_claims
from foobar_shared.envelope import load_p256_public_key
from foobar_shared.errors import EnvelopeError, MessageError, NameFormatError
from foobar_shared.key_policy import partition_of

KEY: Final = "the key's attestation"

DEFAULT_MEASUREMENTS: Final = Path("foobar-enclave.measurements.json")
MAX_AGE: Final = timedelta(minutes=5)
"""How old a fresh answer may be."""

_log: Final = logging.getLogger(__name__)

_MAX_ROOT: Final = 64 * 1024
# The image, its application and its signer. PCR1 is the kernel's, which many images share; others
# say where an enclave runs, or nothing.
_CODE_PCRS: Final = frozenset({0, 2, 8})
_PCR: Final = re.compile(r"([0-9]{1,2})=([0-9A-Fa-f]+)", re.ASCII)
_KEY_ARN: Final = re.compile(r"arn:([^:]+):kms:([^:]+):[0-9]{12}:key/([^:]+)", re.ASCII)
_HINTS: Final = {
    "measurements": "is this the enclave that you built? See --measurements and --pcr0",
    "sandbox-pcr17": "a Nitro Sandbox? Pin its policy with --pcr 17=HEX too",
    "debug-mode": "start the enclave without --debug-mode, or, for a test, give --allow-debug "
    "--trust-any-enclave instead of --measurements or --pcr0",
    "chain-order": "the document is under another root: of AWS's other partition (--partition), "
    "of one whose root is not packaged (all but aws and aws-us-gov: give it with --root-path), or "
    "an emulator's",
    "chain-validity": "check the clock of this machine",
    "age": "check the clock of this machine",
    "nonce": "somebody replays old answers, or answers in the enclave's place",
}

_NO_NONCE: Final = (
    "it carries no nonce at all, so it is from the original's enclave or an older one: build and "
    "run the enclave image of this version"
)

_FOREIGN_KEY: Final = (
    "it was made by the original's enclave or another program: make a key with this one's "
    "create-key"
)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a document must match, and where that was said.

    `measurements` None accepts any enclave under the root. `root` names the root, `pinned_by` the
    options, environment variables or file that pin the enclave. `partition` is that of AWS's root,
    None for a root of somebody else or of a partition whose root is not packaged.
    """

    verifier: Verifier
    measurements: Measurements | None
    allow_debug: bool = False
    root: str = ""
    pinned_by: tuple[str, ...] = ()
    partition: Partition | None = None

    def check_partition(self, region: str) -> None:
        """Check, before a key is made in `region`, that the root is of the region's partition.

        Raises:
            UsageError: it is AWS's root of another partition; the text says what to give.
        """
        needed = partition_of(region)
        if self.partition in (None, needed):
            return
        if needed in get_args(Partition):
            raise UsageError(f"{region} is in the partition {needed}: give --partition {needed}")
        raise UsageError(
            f"{region} is in the partition {needed}, whose Nitro root is not packaged: get it from "
            "AWS, check it, and give it with --root-path"
        )

    def verify_saved(self, document: bytes, what: str) -> Attestation:
        """Verify a saved document, at its own signed time.

        Raises:
            NotVerifiedError: a rule is broken; `what` names the document.
        """
        return self._verify(document, what)

    def verify_key(self, document: bytes) -> tuple[Attestation, KeyClaims]:
        """Verify a saved key's document, and return its content and the key.

        Raises:
            NotVerifiedError: a rule is broken, or it attests no key.
        """
        attestation = self.verify_saved(document, KEY)
        return attestation, key_claims(attestation)

    def verify_fresh(
        self, document: bytes, what: str, *, nonce: bytes, now: datetime
    ) -> Attestation:
        """Verify the answer to a request that was made just now and carried `nonce`.

        Raises:
            NotVerifiedError: a rule is broken; `what` names the document.
        """
        return self._verify(document, what, nonce=nonce, now=now)

    def _verify(
        self,
        document: bytes,
        what: str,
        nonce: bytes | None = None,
        now: datetime | None = None,
    ) -> Attestation:
        try:
            attestation = self.verifier.verify(
                document,
                at=now,
                measurements=self.measurements,
                nonce=nonce,
                max_age=MAX_AGE if now else None,
                allow_debug=self.allow_debug,
            )
        except NonceMismatch as error:
            hint = None if parse_attestation(document).nonce else _NO_NONCE
            raise refusal(what, error, hint) from error
        except AttestationError as error:
            raise refusal(what, error) from error
        _log.debug("%s verifies: %s at %s", what, attestation.module_id, attestation.timestamp)
        return attestation


def refusal(what: str, error: AttestationError, hint: str | None = None) -> NotVerifiedError:
    """Return the error that says which document broke which rule, and what to do."""
    hint = hint or _HINTS.get(error.rule)
    return NotVerifiedError(
        f"{what} does not verify: {error} (rule {error.rule})" + (f"; {hint}" if hint else "")
    )


def key_claims(attestation: Attestation) -> KeyClaims:
    """Return the key that a verified document attests.

    Raises:
        NotVerifiedError: no such claims, or they contradict themselves.
    """
    try:
        claims = parse_key_claims(attestation.user_data)
    except MessageError as error:
        raise NotVerifiedError(f"{KEY} does not attest a key: {error}; {_FOREIGN_KEY}") from error
    try:
        load_p256_public_key(claims.public_key)
        arn = _KEY_ARN.fullmatch(claims.key_arn)
        if arn is None:
            raise MessageError("keyArn is not the ARN of a KMS key")
        expected = (partition_of(claims.region), claims.region, claims.key_id)
    except (MessageError, EnvelopeError, NameFormatError) as error:
        raise NotVerifiedError(f"{KEY} does not attest a key: {error}") from error
    if arn.groups() != expected:
        raise NotVerifiedError(f"{KEY} does not attest a key: its claims contradict each other")
    return claims


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """The options that say what to trust.

    `from_environment` holds the names of the fields that environment variables have set;
    `default_file` is read where nothing else pins the enclave.
    """

    root_path: Path | None = None
    partition: Partition = "aws"
    measurements: Path | None = None
    pcr0: str | None = None
    pcrs: Sequence[str] = ()
    trust_any_enclave: bool = False
    allow_debug: bool = False
    from_environment: frozenset[str] = frozenset()
    default_file: Path | None = None


def make_trust(options: TrustOptions, progress: Progress) -> Trust:
    """Return what to trust, and tell whatever the command line does not show or weakens it.

    Raises:
        UsageError: nothing pins the enclave, or an option is malformed.
        FileError: the root can't be read.
    """
    if options.allow_debug:
        progress.warn("debug-mode enclaves are accepted: they prove nothing about their code")
    root = load_root(options.root_path, options.partition, progress)
    partition = options.partition if root == packaged_root(options.partition) else None
    name = f"AWS's root for the partition {partition}"
    if partition is None:
        name = f"the root with SHA-256 {root.fingerprint(SHA256()).hex()}"
    try:
        pins = list(_pins(options))
        measurements = _combined(pins, options, progress)
    except MeasurementsError as error:
        raise UsageError(str(error)) from error
    sources = tuple(dict.fromkeys(pin.source for pin in pins))
    return Trust(Verifier(root), measurements, options.allow_debug, name, sources, partition)


def load_root(path: Path | None, partition: Partition, progress: Progress) -> x509.Certificate:
    """Return the root certificate to trust, and warn of one that is not AWS's for the partition.

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


@dataclass(frozen=True, slots=True)
class _Pin:
    """Expected PCRs, and where they come from; `shown` if that is this very command line."""

    source: str
    shown: bool
    measurements: Measurements


def _pins(options: TrustOptions) -> Iterator[_Pin]:
    # --trust-any-enclave outweighs what the environment pins.
    skipped = options.from_environment if options.trust_any_enclave else frozenset[str]()
    nothing_given = not (options.measurements or options.pcr0 or options.pcrs)

    def pin(name: str, option: str, measurements: Measurements, path: Path | None = None) -> _Pin:
        shown = name not in options.from_environment
        source = option if shown else f"FOOBAR_{option.removeprefix('--').upper()}"
        return _Pin(f"{source} {path}" if path else source, shown, measurements)

    path = options.measurements
    if path is not None and "measurements" not in skipped:
        expected = Measurements.from_nitro_cli_json(path)
        yield pin("measurements", "--measurements", expected, path)
    if options.pcr0 is not None and "pcr0" not in skipped:
        yield pin("pcr0", "--pcr0", Measurements.from_mapping({0: options.pcr0}))
    for text in () if "pcrs" in skipped else options.pcrs:
        match = _PCR.fullmatch(text)
        if match is None:
            raise MeasurementsError(f"--pcr takes N=HEX, not {text!r}")
        yield pin("pcrs", "--pcr", Measurements.from_mapping({int(match[1]): match[2]}))
    path = options.default_file
    if nothing_given and not options.trust_any_enclave and path and path.exists():
        yield _Pin(f"./{path}", shown=False, measurements=Measurements.from_nitro_cli_json(path))


def _combined(
    pins: Sequence[_Pin], options: TrustOptions, progress: Progress
) -> Measurements | None:
    """Return all expected PCRs; one that is given twice must be given alike."""
    if options.trust_any_enclave:
        if pins:
            raise UsageError("--trust-any-enclave contradicts the measurements that are given")
        progress.warn("any enclave is trusted, whatever its code: no measurement is compared")
        return None
    if not pins:
        raise UsageError(
            "no measurement pins the enclave: give --measurements FILE or --pcr0 HEX (what "
            "build-and-run-enclave.sh or the enclave's publisher printed)"
        )
    expected: dict[int, bytes] = {}
    told: dict[str, int] = {}
    for pin in pins:
        for index, value in pin.measurements.pcrs.items():
            if expected.setdefault(index, value) != value:
                raise MeasurementsError(f"PCR{index} is given twice, with different values")
            if not pin.shown:
                told[pin.source] = min(index, told.get(pin.source, index))
    # Zero is what debug mode has in all of them, and every image that is not signed in PCR8.
    if not any(any(expected[index]) for index in _CODE_PCRS & expected.keys()):
        progress.warn("the expected PCRs say nothing about the enclave's code: add --pcr0")
    for source, index in told.items():
        progress.note(f"pinned by {source}: PCR{index} {expected[index].hex()}")
    return Measurements(expected)
