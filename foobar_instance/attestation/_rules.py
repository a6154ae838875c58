"""Every rule that a document must obey: the demand, its source, and the error when it is broken.

"AWS n" is item n of the validation process that AWS publishes (nsm-api, attestation_process.md), in
the numbering of docs/verification.md; "own" is a rule that AWS does not list.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from foobar_shared.key_policy import PCR_BYTES

MAX_PAYLOAD: Final = 16384  # AWS 4
MAX_DOCUMENT: Final = MAX_PAYLOAD + 256  # headers, signature and their CBOR heads take 110 bytes
MAX_DEPTH: Final = 4  # of containers; pcrs is at 2, the rest is for keys that AWS may add
MAX_CERTIFICATE: Final = 1024  # AWS 13, 14
MAX_CABUNDLE: Final = 8  # AWS sets no bound; genuine bundles hold 4
MAX_MODULE_ID: Final = 256  # AWS sets no bound; genuine ids have 39 characters
# AWS says 512 or 1,024, but Nitro has signed a nonce of 1,025. An NSM request has at most 4,096
# bytes (nsm-api), of which 46 are not the field's where the other two are null.
MAX_FIELD: Final = 4096 - 46
MAX_PCRS: Final = 32  # AWS 12
SIGNATURE_BYTES: Final = 96  # ES384: 48 + 48 (RFC 9053 section 2.1)
MAX_TIMESTAMP: Final = 253_402_300_799_999  # end of the year 9999, in milliseconds


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand on a document."""

    name: str
    demand: str
    source: str
    error: type[AttestationError] = MalformedAttestation

    def broken(self, found: str) -> AttestationError:
        """Return the error to raise, with a printable text: the demand, and what was found."""
        text = f"{self.demand}, but {found}"
        return self.error(self.name, "".join(c if c.isprintable() else "?" for c in text))


def kind(value: object) -> str:
    """Return what a hostile value is, without its content."""
    if isinstance(value, bytes):
        return f"a byte string of {len(value)} bytes"
    if isinstance(value, list | tuple | Mapping):
        return f"a {'map' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    return "null" if value is None else f"of type {type(value).__name__}"


# 1. Form
SIZE: Final = Rule("size", f"a document must have 1 to {MAX_DOCUMENT} bytes", "own")
CBOR: Final = Rule(
    "cbor", "a document must be one well-formed CBOR item", "AWS 1; own: bounds, nothing trailing"
)
COSE_TAG: Final = Rule("cose-tag", "a document must be untagged or have CBOR tag 18", "AWS 1")
COSE_ARRAY: Final = Rule("cose-array", "a document must be a COSE_Sign1 array of 4", "AWS 1")
COSE_ALGORITHM: Final = Rule(
    "cose-algorithm", "the protected header must be {1: -35} (ES384)", "AWS 2"
)
COSE_UNPROTECTED: Final = Rule(
    "cose-unprotected", "the unprotected header must be an empty map", "AWS 3"
)
COSE_PAYLOAD: Final = Rule(
    "cose-payload", f"the payload must be a byte string of 1 to {MAX_PAYLOAD} bytes", "AWS 4"
)
COSE_SIGNATURE: Final = Rule(
    "cose-signature", f"the signature must be a byte string of {SIGNATURE_BYTES} bytes", "AWS 5"
)
PAYLOAD_CBOR: Final = Rule(
    "payload-cbor", "the payload must be one CBOR map with text keys", "AWS 1; own: no key twice"
)
NITRO_TPM: Final = Rule(
    "nitro-tpm", "a document must come from a Nitro Enclave, with pcrs", "AWS 7"
)
MANDATORY_FIELDS: Final = Rule(
    "mandatory-fields", "no mandatory field may be missing or null", "AWS 7, 8"
)
MODULE_ID: Final = Rule(
    "module-id", f"module_id must be a text of 1 to {MAX_MODULE_ID} printable characters", "AWS 9"
)
DIGEST: Final = Rule("digest", "digest must be the text SHA384", "AWS 10")
TIMESTAMP: Final = Rule(
    "timestamp",
    "timestamp must be a positive number of milliseconds, up to the year 9999",
    "AWS 11",
)
PCRS: Final = Rule(
    "pcrs", f"pcrs must map 1 to {MAX_PCRS} indices 0 to 31 to {PCR_BYTES} bytes each", "AWS 12"
)
CERTIFICATE: Final = Rule(
    "certificate", f"certificate must be X.509 DER of 1 to {MAX_CERTIFICATE} bytes", "AWS 13"
)
CABUNDLE: Final = Rule(
    "cabundle",
    f"cabundle must be 1 to {MAX_CABUNDLE} X.509 DERs of 1 to {MAX_CERTIFICATE} bytes each",
    "AWS 14",
)
OPTIONAL_FIELDS: Final = Rule(
    "optional-fields", f"an optional field must be null or 0 to {MAX_FIELD} bytes", "AWS 15, 16, 17"
)

# 2. Chain
CHAIN_ORDER: Final = Rule(
    "chain-order",
    "cabundle must lead from the trusted root to the issuer, in order",
    "AWS 18, 24",
    UntrustedCertificate,
)
CHAIN_VALIDITY: Final = Rule(
    "chain-validity",
    "every certificate must be valid at the time of verification",
    "AWS 19",
    UntrustedCertificate,
)
CHAIN_PATH: Final = Rule(
    "chain-path",
    "the certificates must form a valid path to the root",
    "AWS 20, 21, 22, 23",
    UntrustedCertificate,
)
LEAF_SUBJECT: Final = Rule(
    "leaf-subject",
    "the leaf certificate must be named after module_id",
    "own",
    UntrustedCertificate,
)

# 3. Signature
SIGNATURE_KEY: Final = Rule(
    "signature-key",
    "the leaf certificate must hold a P-384 key",
    "AWS 6; RFC 9053 section 2.1",
    InvalidSignature,
)
SIGNATURE: Final = Rule(
    "signature", "the signature must be the leaf key's over this payload", "AWS 6", InvalidSignature
)

# 4. Mode and measurements
DEBUG: Final = Rule(
    "debug-mode", "the enclave must not run in debug mode", "own", DebugModeAttestation
)
MEASUREMENTS: Final = Rule(
    "measurements", "the enclave must have the expected measurements", "own", MeasurementMismatch
)
SANDBOX_PCR17: Final = Rule(
    "sandbox-pcr17",
    "a document with PCR17 must be compared with an expected PCR17",
    "own",
    MeasurementMismatch,
)

# 5. Freshness
AGE: Final = Rule("age", "the document must have been signed just now", "own", StaleAttestation)
NONCE: Final = Rule(
    "nonce", "the document must carry the nonce of the request", "own", NonceMismatch
)
