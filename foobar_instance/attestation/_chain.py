"""Certificate path validation up to the trusted root, remembered while it holds."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
import warnings
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from foobar_instance.attestation._document import Attestation
from foobar_instance.attestation._rules import (
    CABUNDLE,
    CERTIFICATE,
    CHAIN_ORDER,
    CHAIN_PATH,
    CHAIN_VALIDITY,
    LEAF_SUBJECT,
    MAX_CABUNDLE,
    SIGNATURE_KEY,
    Rule,
)
from foobar_instance.attestation.anchors import partition_of
from foobar_instance.attestation.certificate import UnfamiliarCertificate
from foobar_instance.attestation.es384 import CryptographyKey
from foobar_instance.attestation.path import FamiliarPaths, TrustedChain

# What a hostile certificate makes `cryptography` warn of (lengths, serial numbers) is for no one's
# stderr: the rules alone judge it. Only warnings that arise in this module are meant.
warnings.filterwarnings("ignore", module=re.escape(__name__))

_REMEMBERED: Final = 256
_MAX_REASON: Final = 300


class ChainVerifier:
    """Validates the chains of documents under one root; thread-safe.

    The library validates the first, and the ones that are not of AWS's own form; `path` validates
    the rest, with signatures by the library that verifies fastest.

    A chain that was valid once is valid at every moment within the validity of all of its
    certificates: nothing else that path validation looks at depends on time, and revocation is not
    checked, as AWS's process demands. It is remembered by the hash of all its bytes.
    """

    def __init__(self, root: x509.Certificate) -> None:
        self._root = root
        self._root_der = root.public_bytes(Encoding.DER)
        self._store = Store([root])
        self._chains: OrderedDict[bytes, TrustedChain] = OrderedDict()
        self._lock = threading.Lock()
        self._is_first = True
        self._paths = functools.cache(functools.partial(_familiar_paths, self._root_der))

    def verify(self, attestation: Attestation, moment: datetime) -> TrustedChain:
        """The chain of `attestation`, valid at `moment`.

        Raises:
            MalformedAttestation: a certificate does not parse.
            UntrustedCertificate: a rule on the chain is broken.
            InvalidSignature: the leaf's key is not on P-384.
        """
        is_first, self._is_first = self._is_first, False
        identity = _identity(attestation)
        remembered = self._remembered(identity)
        chain = remembered or (None if is_first else self._familiar(attestation))
        if chain is None or not chain.valid_at(moment):
            chain = self._validate(attestation, moment)
        if not is_first:
            chain = _quickest(chain)
        if chain is not remembered:
            self._remember(identity, chain)
        return chain

    def _remembered(self, identity: bytes) -> TrustedChain | None:
        with self._lock:
            chain = self._chains.get(identity)
            if chain is not None:
                self._chains.move_to_end(identity)
            return chain

    def _remember(self, identity: bytes, chain: TrustedChain) -> None:
        with self._lock:
            self._chains[identity] = chain
            if len(self._chains) > _REMEMBERED:
                self._chains.popitem(last=False)

    def _familiar(self, attestation: Attestation) -> TrustedChain | None:
        """The chain, if it is of AWS's own form and keeps every rule but that on time."""
        root, *authorities = attestation.cabundle
        paths = self._paths()
        if paths is None or root != self._root_der:
            return None
        name = f"{attestation.module_id}."
        with suppress(UnfamiliarCertificate):
            return paths.chain(tuple(authorities), attestation.certificate, name.encode())
        return None

    def _validate(self, attestation: Attestation, moment: datetime) -> TrustedChain:
        leaf = _load(attestation.certificate, CERTIFICATE, "it")
        bundle = [
            _load(der, CABUNDLE, f"number {number}")
            for number, der in enumerate(attestation.cabundle, 1)
        ]
        if attestation.cabundle[0] != self._root_der:
            raise CHAIN_ORDER.broken(
                f"its first certificate is {_other_root(attestation.cabundle[0])}"
            )
        _check_subject(leaf, attestation.module_id)
        chain = _trusted_chain(leaf, bundle)
        if not chain.valid_at(moment):
            raise CHAIN_VALIDITY.broken(
                f"these are all valid only from {utc(chain.not_before)} to "
                f"{utc(chain.not_after)} UTC, not at {utc(moment)}"
            )
        self._check_path(leaf, bundle, moment)
        return chain

    def _check_path(
        self, leaf: x509.Certificate, bundle: list[x509.Certificate], moment: datetime
    ) -> None:
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(moment.astimezone(UTC).replace(tzinfo=None))
            .max_chain_depth(MAX_CABUNDLE)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        try:
            path = verifier.verify(leaf, bundle[1:]).chain
        except VerificationError as error:
            raise CHAIN_PATH.broken(f"validation failed: {_reason(error)}") from error
        if path != [leaf, *reversed(bundle)]:
            raise CHAIN_ORDER.broken("its order is another, or some are not in the path")


def _familiar_paths(root: bytes) -> FamiliarPaths | None:
    with suppress(UnfamiliarCertificate):
        return FamiliarPaths(root)
    return None


def _quickest(chain: TrustedChain) -> TrustedChain:
    key = chain.key.for_many()
    return chain if key is chain.key else replace(chain, key=key)


def utc(moment: datetime) -> str:
    """An aware time as an error's text shows it: in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _require_cert_sign(_: Policy, __: x509.Certificate, usage: x509.ExtensionType | None) -> None:
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        raise ValueError("a CA's key usage lacks keyCertSign")


def _require_signing(_: Policy, __: x509.Certificate, usage: x509.ExtensionType | None) -> None:
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise ValueError("the leaf's key usage lacks digitalSignature")


def _require_no_ca(_: Policy, __: x509.Certificate, constraints: x509.ExtensionType | None) -> None:
    if not isinstance(constraints, x509.BasicConstraints) or constraints.ca:
        raise ValueError("the leaf is a CA")


# The library's defaults demand key identifiers and alternative names, which AWS's certificates
# lack. Names, signatures, CA flag and path lengths it always checks.
_CA_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
    .require_present(x509.KeyUsage, Criticality.CRITICAL, _require_cert_sign)
)
_LEAF_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.CRITICAL, _require_no_ca)
    .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
)


def _identity(attestation: Attestation) -> bytes:
    """SHA-256 over what path validation looks at, each part preceded by its length."""
    digest = hashlib.sha256()
    parts = (attestation.module_id.encode(), attestation.certificate, *attestation.cabundle)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def _other_root(der: bytes) -> str:
    partition = partition_of(der)
    if partition is None:
        return "not the trusted root"
    return f"the root of AWS's partition {partition}, not the trusted root"


def _reason(error: VerificationError) -> str:
    """What path validation found, without the names in hostile certificates, on one line."""
    text = str(error).removeprefix("validation failed: ").partition(" (encountered processing")[0]
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_REASON])


def _load(der: bytes, rule: Rule, which: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # the year 0, for one
    except Exception as error:  # InvalidVersion, for one, is no ValueError
        raise rule.broken(f"{which} does not parse") from error
    # Whole octets (RFC 3279 section 2.2.3): the count of unused bits, which nothing
    # signs and the library does not look at, precedes them.
    if not der.endswith(b"\0" + certificate.signature):
        raise rule.broken(f"{which} has a signature that is not whole octets")
    return certificate


def _trusted_chain(leaf: x509.Certificate, bundle: list[x509.Certificate]) -> TrustedChain:
    try:
        key = leaf.public_key()
    except Exception as error:  # UnsupportedAlgorithm, for one, is no ValueError
        raise SIGNATURE_KEY.broken("its key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SIGNATURE_KEY.broken(f"it holds another ({_kind(key)})")
    certificates = [leaf, *bundle]
    return TrustedChain(
        key=CryptographyKey(key),
        not_before=max(certificate.not_valid_before_utc for certificate in certificates),
        not_after=min(certificate.not_valid_after_utc for certificate in certificates),
    )


def _kind(key: object) -> str:
    return key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else "not elliptic"


def _check_subject(leaf: x509.Certificate, module_id: str) -> None:
    """Genuine leaves are named `<module id>.<region>.aws`."""
    try:
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception as error:  # TypeError, for one, where an attribute is a BIT STRING
        raise CERTIFICATE.broken("its subject does not parse") from error
    if len(names) != 1 or not str(names[0].value).startswith(f"{module_id}."):
        raise LEAF_SUBJECT.broken("its common name begins otherwise")
