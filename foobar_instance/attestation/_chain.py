"""Certificate path validation from a leaf certificate up to the trusted root."""

from __future__ import annotations

import functools
import re
import warnings
from dataclasses import dataclass
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

from foobar_instance.attestation import _rules as rules
from foobar_instance.attestation._document import Attestation
from foobar_instance.attestation._rules import Rule
from foobar_instance.attestation.anchors import partition_of

# A hostile certificate can make `cryptography` warn (of lengths, of serial numbers). The rules
# alone judge it, and stderr is not for its sender. This covers warnings raised in this module only.
warnings.filterwarnings("ignore", module=re.escape(__name__))

_REMEMBERED: Final = 256
_MAX_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class _TrustedChain:
    """A valid chain's leaf key, and when all of its certificates are valid (both inclusive)."""

    key: ec.EllipticCurvePublicKey
    not_before: datetime
    not_after: datetime


class ChainVerifier:
    """Validate the chains of documents under one root, and remember the valid ones. Thread-safe."""

    def __init__(self, root: x509.Certificate) -> None:
        self._root_der = root.public_bytes(Encoding.DER)
        self._store = Store([root])
        # Keyed by all that validation looks at. What raises is not remembered.
        self._trusted = functools.lru_cache(_REMEMBERED)(self._validate)

    def verify(self, attestation: Attestation, moment: datetime) -> ec.EllipticCurvePublicKey:
        """Return the leaf's P-384 key; the chain is valid at `moment`.

        Raises:
            MalformedAttestation: a certificate does not parse.
            UntrustedCertificate: a rule on the chain is broken.
            InvalidSignature: the leaf's key is not on P-384.
        """
        chain = self._trusted(attestation.module_id, attestation.certificate, attestation.cabundle)
        if not chain.not_before <= moment <= chain.not_after:
            raise rules.CHAIN_VALIDITY.broken(
                f"these are all valid only from {utc(chain.not_before)} to "
                f"{utc(chain.not_after)} UTC, not at {utc(moment)}"
            )
        return chain.key

    def _validate(
        self, module_id: str, certificate: bytes, cabundle: tuple[bytes, ...]
    ) -> _TrustedChain:
        leaf = _load(certificate, rules.CERTIFICATE, "it")
        bundle = [
            _load(der, rules.CABUNDLE, f"number {number}") for number, der in enumerate(cabundle, 1)
        ]
        if cabundle[0] != self._root_der:
            raise rules.CHAIN_ORDER.broken(f"its first certificate is {_other_root(cabundle[0])}")
        _check_subject(leaf, module_id)
        key = _p384_key(leaf)
        not_before = max(each.not_valid_before_utc for each in (leaf, *bundle))
        not_after = min(each.not_valid_after_utc for each in (leaf, *bundle))
        if not_before > not_after:
            raise rules.CHAIN_VALIDITY.broken("these are never all valid at once")
        # Nothing but the validity periods depends on time: revocation is not checked, as AWS's
        # process demands. A chain that is valid at one moment of the window is at every other.
        self._check_path(leaf, bundle, not_before)
        return _TrustedChain(key, not_before, not_after)

    def _check_path(
        self, leaf: x509.Certificate, bundle: list[x509.Certificate], moment: datetime
    ) -> None:
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(moment.replace(tzinfo=None))
            .max_chain_depth(rules.MAX_CABUNDLE)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        try:
            path = verifier.verify(leaf, bundle[1:]).chain
        except VerificationError as error:
            raise rules.CHAIN_PATH.broken(f"validation failed: {_reason(error)}") from error
        if path != [leaf, *reversed(bundle)]:
            raise rules.CHAIN_ORDER.broken("its order is another, or some are not in the path")


def utc(moment: datetime) -> str:
    """Return an aware time as errors show it: in UTC, to the second."""
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
# lack. It always checks names, signatures, the CA flag and path lengths.
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


def _load(der: bytes, rule: Rule, which: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # the year 0, for one
    except Exception as error:  # InvalidVersion, for one, is no ValueError
        raise rule.broken(f"{which} does not parse") from error
    # Whole octets (RFC 3279 section 2.2.3). The byte before the signature counts unused bits;
    # nothing signs it, and the library does not look at it.
    if not der.endswith(b"\0" + certificate.signature):
        raise rule.broken(f"{which} has a signature that is not whole octets")
    return certificate


def _other_root(der: bytes) -> str:
    partition = partition_of(der)
    if partition is None:
        return "not the trusted root"
    return f"the root of AWS's partition {partition}, not the trusted root"


def _check_subject(leaf: x509.Certificate, module_id: str) -> None:
    """Check that the leaf is named `<module id>.<region>.aws`, as genuine ones are."""
    try:
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception as error:  # TypeError, for one, where an attribute is a BIT STRING
        raise rules.CERTIFICATE.broken("its subject does not parse") from error
    if len(names) != 1 or not str(names[0].value).startswith(f"{module_id}."):
        raise rules.LEAF_SUBJECT.broken("its common name begins otherwise")


def _p384_key(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = leaf.public_key()
    except Exception as error:  # UnsupportedAlgorithm, for one, is no ValueError
        raise rules.SIGNATURE_KEY.broken("its key cannot be read") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else "not elliptic"
    raise rules.SIGNATURE_KEY.broken(f"it holds another ({kind})")


def _reason(error: VerificationError) -> str:
    """Return what path validation found, without the names in hostile certificates."""
    text = str(error).removeprefix("validation failed: ")
    return text.partition(" (encountered processing")[0][:_MAX_REASON]
