"""Every rule that a document must obey, with the demand and its source.

"AWS n" is item n of the validation process that AWS publishes (nsm-api, attestation_process.md), in
the numbering of docs/verification.md; "own" is a rule that AWS does not list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from foobar_instance.attestation.errors import (
    AttestationError,
    DebugModeAttestation,
    InvalidSignature,
    MalformedAttestation,
    MeasurementMismatch,
    NonceMismatch,
    StaleAttestation,
    UntrustedCertificate,
)

MAX_PAYLOAD: Final = 16384  # AWS 4
MAX_DOCUMENT: Final = MAX_PAYLOAD + 256  # headers, signature and their CBOR heads take 110 bytes
MAX_DEPTH: Final = 4  # of containers; pcrs is at 2, the rest is for keys that AWS may add
MAX_CERTIFICATE: Final = 1024  # AWS 13, 14
MAX_CABUNDLE: Final = 8  # AWS sets no bound; genuine bundles hold 4
MAX_FIELD: Final = 1024  # AWS's CDDL; section 3.2.2.2 says 512, genuine documents have 1024
MAX_PCRS: Final = 32  # AWS 12
PCR_BYTES: Final = 48  # SHA-384, the only digest (AWS 10)
SIGNATURE_BYTES: Final = 96  # ES384: 48 + 48 (RFC 9053 section 2.1)
MAX_TIMESTAMP: Final = 253_402_300_799_999  # end of the year 9999, in milliseconds


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand on a document; `broken` makes the error that says what was found instead."""

    name: str
    demand: str
    source: str
    error: type[AttestationError]

    def broken(self, found: str) -> AttestationError:
        """The error to raise: the demand, and what was found."""
        return self.error(self.name, f"{self.demand}, but {found}")


def _rules(error: type[AttestationError], *rows: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(*row, error) for row in rows)


(
    SIZE,
    CBOR,
    COSE_TAG,
    COSE_ARRAY,
    COSE_ALGORITHM,
    COSE_UNPROTECTED,
    COSE_PAYLOAD,
    COSE_SIGNATURE,
    PAYLOAD_CBOR,
    NITRO_TPM,
    MANDATORY_FIELDS,
    MODULE_ID,
    DIGEST,
    TIMESTAMP,
    PCRS,
    CERTIFICATE,
    CABUNDLE,
    OPTIONAL_FIELDS,
) = FORM = _rules(
    MalformedAttestation,
    ("size", f"a document must have 1 to {MAX_DOCUMENT} bytes", "own"),
    (
        "cbor",
        "a document must be one well-formed CBOR item",
        "AWS 1; own: bounds, nothing trailing",
    ),
    ("cose-tag", "a document must be untagged or have CBOR tag 18", "AWS 1"),
    ("cose-array", "a document must be a COSE_Sign1 array of 4", "AWS 1"),
    ("cose-algorithm", "the protected header must be {1: -35} (ES384)", "AWS 2"),
    ("cose-unprotected", "the unprotected header must be an empty map", "AWS 3"),
    ("cose-payload", f"the payload must be a byte string of 1 to {MAX_PAYLOAD} bytes", "AWS 4"),
    ("cose-signature", f"the signature must be a byte string of {SIGNATURE_BYTES} bytes", "AWS 5"),
    ("payload-cbor", "the payload must be one CBOR map with text keys", "AWS 1; own: no key twice"),
    ("nitro-tpm", "a document must come from a Nitro Enclave, with pcrs", "AWS 7"),
    ("mandatory-fields", "no mandatory field may be missing or null", "AWS 7, 8"),
    ("module-id", "module_id must be a text of 1 to 256 printable characters", "AWS 9"),
    ("digest", "digest must be the text SHA384", "AWS 10"),
    (
        "timestamp",
        "timestamp must be a positive number of milliseconds, up to the year 9999",
        "AWS 11",
    ),
    ("pcrs", f"pcrs must map 1 to {MAX_PCRS} indices 0 to 31 to {PCR_BYTES} bytes each", "AWS 12"),
    ("certificate", f"certificate must be X.509 DER of 1 to {MAX_CERTIFICATE} bytes", "AWS 13"),
    (
        "cabundle",
        f"cabundle must be 1 to {MAX_CABUNDLE} X.509 DERs of 1 to {MAX_CERTIFICATE} bytes each",
        "AWS 14",
    ),
    (
        "optional-fields",
        f"an optional field must be null or 0 to {MAX_FIELD} bytes",
        "AWS 15, 16, 17",
    ),
)

(
    CHAIN_ORDER,
    CHAIN_VALIDITY,
    CHAIN_PATH,
    LEAF_SUBJECT,
) = TRUST = _rules(
    UntrustedCertificate,
    (
        "chain-order",
        "cabundle must lead from the trusted root to the issuer, in order",
        "AWS 18, 24",
    ),
    ("chain-validity", "every certificate must be valid at the time of verification", "AWS 19"),
    ("chain-path", "the certificates must form a valid path to the root", "AWS 20, 21, 22, 23"),
    ("leaf-subject", "the leaf certificate must be named after module_id", "own"),
)

(SIGNATURE_KEY, SIGNATURE) = SIGNED = _rules(
    InvalidSignature,
    ("signature-key", "the leaf certificate must hold a P-384 key", "AWS 6; RFC 9053 section 2.1"),
    ("signature", "the signature must be the leaf key's over this payload", "AWS 6"),
)

(DEBUG,) = _rules(
    DebugModeAttestation, ("debug-mode", "the enclave must not run in debug mode", "own")
)
(MEASUREMENTS,) = _rules(
    MeasurementMismatch, ("measurements", "the enclave must have the expected measurements", "own")
)
(AGE,) = _rules(StaleAttestation, ("age", "the document must have been signed just now", "own"))
(NONCE,) = _rules(
    NonceMismatch, ("nonce", "the document must carry the nonce of the request", "own")
)

ALL: Final = (*FORM, *TRUST, *SIGNED, DEBUG, MEASUREMENTS, AGE, NONCE)
