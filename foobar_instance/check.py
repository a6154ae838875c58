"""`check`: whether each enclave is the key's and as pinned, and KMS would let it use the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_instance.decrypt import fetch_recipient
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import InstanceError
from foobar_instance.kms_client import KmsService
from foobar_instance.terminal import visible
from foobar_instance.trust import Trust
from foobar_shared.addresses import Address


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; `exit_code` is 0 if it is as it should be."""

    text: str
    exit_code: int = 0

    def __str__(self) -> str:
        """Return one line."""
        return f"{'failed' if self.exit_code else 'ok'}: {visible(self.text)}"


def check(
    key_document: bytes,
    addresses: Iterable[Address],
    trust: Trust,
    *,
    now: Callable[[], datetime],
    kms: Callable[[str], KmsService] = KmsService,
) -> Iterator[Finding]:
    """Check the key's attestation, then each enclave and what KMS would answer to it.

    Nothing is decrypted, and KMS derives nothing. `now` is the clock; `kms` makes the client of
    KMS in a region.
    """
    try:
        key, claims = trust.verify_key(key_document)
        service = kms(claims.region)
    except InstanceError as error:
        yield Finding(str(error), error.exit_code)
        return
    yield Finding(f"the attestation of {claims.key_arn} verifies")
    for address in addresses:
        try:
            with EnclaveClient(address) as enclave:
                document = fetch_recipient(enclave.ask, key, trust, now=now)
            yield Finding(f"{address}: the key's enclave answers, as pinned")
            service.check_derive(
                key_arn=claims.key_arn, ephemeral_key=_public_key(), attestation=document
            )
            yield Finding(f"{address}: KMS would let this enclave use the key")
        except InstanceError as error:
            yield Finding(f"{address}: {error}", error.exit_code)


def _public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
