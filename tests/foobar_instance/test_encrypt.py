"""Encryption to an attested key, and to nothing else."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from foobar_instance.encrypt import sealer
from foobar_instance.errors import NotVerifiedError
from foobar_shared import envelope, hpke
from tests.support.documents import KEY_ARN, OTHER_PCR0, PRIVATE_KEY, PUBLIC_KEY, Signer


@pytest.mark.parametrize("plaintext", [b"", b"banana", bytes(envelope.MAX_PLAINTEXT)])
def test_only_the_attested_key_reads_format_1(sign: Signer, plaintext: bytes) -> None:
    message = envelope.parse_message(sealer(sign.key(), sign.trust(), 1)(plaintext))
    ephemeral = load_der_public_key(message.ephemeral_key)
    assert isinstance(ephemeral, ec.EllipticCurvePublicKey)
    shared = PRIVATE_KEY.exchange(ec.ECDH(), ephemeral)
    assert envelope.decrypt(message.nonce, message.ciphertext, shared) == plaintext


@pytest.mark.parametrize("plaintext", [b"", b"banana", bytes(hpke.MAX_PLAINTEXT)])
def test_only_the_attested_key_reads_format_2(sign: Signer, plaintext: bytes) -> None:
    message = hpke.parse(sealer(sign.key(), sign.trust())(plaintext))
    assert message is not None
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.enc)
    shared = PRIVATE_KEY.exchange(ec.ECDH(), peer)
    opened = hpke.open_message(message.enc, message.ciphertext, shared, PUBLIC_KEY, KEY_ARN)
    assert opened == plaintext


def test_a_key_of_another_enclave_gets_nothing(sign: Signer) -> None:
    with pytest.raises(NotVerifiedError, match=r"the key's attestation does not verify: .*PCR0"):
        sealer(sign.key(), sign.trust(OTHER_PCR0))
