"""Weakness 10: no secret is in any log line or error, at whatever level and on whatever way."""

from __future__ import annotations

import base64
import dataclasses
import logging
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from foobar_enclave.kms import KmsConnector
from foobar_enclave.service import EnclaveService
from foobar_shared.messages import DecryptRequest, encode_request
from tests.foobar_enclave.ber import enveloped
from tests.foobar_enclave.fake_kms import Authority, FakeKms, refusal
from tests.foobar_enclave.fakes import CREDENTIALS, REQUEST, FakeNsm

SECRET = b"canary of a shared secret, 32 by"
PLAINTEXT = b"canary plaintext, attack at dawn"
NONCE = b"twelve bytes"
CEK = HKDF(SHA256(), 32, b"foobar-service-salt", b"").derive(SECRET)
CIPHERTEXT = AESGCM(CEK).encrypt(NONCE, PLAINTEXT, None)


def encodings(secret: bytes) -> list[str]:
    """How a secret might be written; base64 at each of the three alignments."""
    aligned = [base64.b64encode(bytes(shift) + secret).decode()[4:-4] for shift in range(3)]
    return [secret.decode("latin-1"), repr(secret)[2:-1], secret.hex(), *aligned]


@pytest.mark.threat("10")
def test_weakness_10_nothing_secret_is_logged_or_answered(
    kms: FakeKms,
    authority: Authority,
    rsa_key: rsa.RSAPrivateKey,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    connector = KmsConnector(kms.connect, ca_file=authority.ca_file, pause=lambda _: None)
    echo = " ".join(dataclasses.astuple(CREDENTIALS))
    good = DecryptRequest(enveloped(SECRET, rsa_key), NONCE, CIPHERTEXT)
    lines = [
        encode_request(good),
        encode_request(DecryptRequest(enveloped(PLAINTEXT[:31], rsa_key), NONCE, CIPHERTEXT)),
        encode_request(DecryptRequest(enveloped(SECRET, rsa_key), NONCE, CIPHERTEXT[:-1])),
        encode_request(REQUEST),
        encode_request(REQUEST).replace(b'"Token":"', b'"Token":"\\n'),
        encode_request(REQUEST).replace(b'"SecretAccessKey":"', b'"SecretAccessKey":["'),
        encode_request(REQUEST)[:-3],
    ]
    service = EnclaveService(nsm=FakeNsm().device, kms=connector, key=rsa_key)
    answers = [service.handle(line) for line in lines]
    assert b'"decrypt"' in answers[0]
    assert b'"createKey"' in answers[3]
    kms.answers["CreateKey"] = lambda _: refusal("InvalidSignatureException", echo)
    answers.append(service.handle(encode_request(REQUEST)))
    assert b"InvalidSignatureException: [secret] [secret] [secret]" in answers[-1]
    kms.answers["CreateKey"] = lambda _: b"HTTP/1.1 200 OK\r\n" + echo.encode()
    answers.append(service.handle(encode_request(REQUEST)))
    broken = KmsConnector(lambda: _fail(echo), ca_file=authority.ca_file)
    service = EnclaveService(nsm=FakeNsm().device, kms=broken, key=rsa_key)
    answers.append(service.handle(encode_request(REQUEST)))

    private = rsa_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    primes = rsa_key.private_numbers()
    said = caplog.text + "".join(capfd.readouterr()) + b"".join(answers).decode()
    assert said.count("event=request") == len(answers)
    for secret in (
        SECRET,
        PLAINTEXT,
        CEK,
        CREDENTIALS.access_key_id.encode(),
        CREDENTIALS.secret_access_key.encode(),
        CREDENTIALS.token.encode(),
        private[100:130],
        primes.p.to_bytes(128, "big")[:30],
    ):
        for text in encodings(secret):
            assert text not in said


def _fail(text: str) -> NoReturn:
    raise ValueError(text)
