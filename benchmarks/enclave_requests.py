"""Requests a second of the enclave, beside the module's answer and the RSA operation alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from benchmarks.enclaves import Enclave, ask, enclave, load, module
from benchmarks.report import Measurement, Section, ratio_of
from benchmarks.rounds import rate
from emulator.channel import SocketTransport
from emulator.recipient_cms import encrypt_for_recipient
from foobar_instance.attestation import parse_attestation
from foobar_shared.envelope import encrypt, load_p256_public_key, parse_message
from foobar_shared.messages import (
    NONCE_BYTES,
    AttestationResponse,
    DecryptRequest,
    GetAttestationRequest,
    encode_request,
    parse_response,
)

_SECONDS: Final = 1.0  # of each sample
_MANY: Final = 64
_BOUND: Final = 0.7

_MODULE: Final = "the module's stand-in alone"
_WITH_RSA: Final = "the same and one RSA decryption"
_GET: Final = "getAttestation, 1 client"
_GET_MANY: Final = f"getAttestation, {_MANY} clients"
_DECRYPT: Final = "decrypt, 1 client"
_DECRYPT_MANY: Final = f"decrypt, {_MANY} clients"
_CANNED: Final = "getAttestation, 1 client, a module that signs nothing"
_SINGLE: Final = "getAttestation's latency, 1 client, median"
_P99: Final = f"getAttestation's latency, {_MANY} clients, p99"


def run(rounds: int) -> Section:
    """Requests a second and latencies."""
    rates: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    with module("signing") as near, enclave("signing") as real, enclave("canned") as quick:
        get = encode_request(GetAttestationRequest(secrets.token_bytes(NONCE_BYTES)))
        decrypt = _decrypt_request(real, get)
        alone, with_rsa = _limits(SocketTransport(near))
        for number in range(rounds + 1):
            one = load(real.address, get, clients=1, seconds=_SECONDS)
            many = load(real.address, get, clients=_MANY, seconds=_SECONDS)
            found = {
                _MODULE: rate(alone, seconds=_SECONDS),
                _GET: one.rate,
                _GET_MANY: many.rate,
                _WITH_RSA: rate(with_rsa, seconds=_SECONDS),
                _DECRYPT: load(real.address, decrypt, clients=1, seconds=_SECONDS).rate,
                _DECRYPT_MANY: load(real.address, decrypt, clients=_MANY, seconds=_SECONDS).rate,
                _CANNED: load(quick.address, get, clients=1, seconds=_SECONDS).rate,
            }
            latencies = {_SINGLE: one.quantile(0.5) * 1000, _P99: many.quantile(0.99) * 1000}
            if number:
                for whole, values in ((rates, found), (times, latencies)):
                    for who, value in values.items():
                        whole.setdefault(who, []).append(value)
    return _section(rates, times)


def _section(rates: dict[str, list[float]], times: dict[str, list[float]]) -> Section:
    measured = {
        who: Measurement(who, unit, tuple(samples))
        for whole, unit in ((rates, "requests/s"), (times, "ms"))
        for who, samples in whole.items()
    }
    pairs = ((_GET, _MODULE), (_GET_MANY, _MODULE), (_DECRYPT, _WITH_RSA))
    return Section(
        name="enclave-requests",
        work="Lines over a unix socket to the enclave's program in a process of its own. Its "
        "module is another process behind a socket pair, which signs each document with P-384 in "
        "software, one at a time; a client asks again as soon as it is answered.",
        measurements=tuple(measured.values()),
        ratios=(
            *(ratio_of(measured[mine], measured[limit], bound=_BOUND) for mine, limit in pairs),
            ratio_of(measured[_DECRYPT_MANY], measured[_WITH_RSA], bound=_BOUND),
            ratio_of(measured[_P99], measured[_SINGLE], bound=float(_MANY), better="lower"),
        ),
    )


def _limits(transport: SocketTransport) -> tuple[Callable[[], object], Callable[[], object]]:
    """What cannot be saved: the module's answer, and that with the RSA operation of a decrypt."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key()
    fields = {
        "user_data": None,
        "nonce": secrets.token_bytes(NONCE_BYTES),
        "public_key": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    }
    request = cbor2.dumps({"Attestation": fields})
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    encrypted = public.encrypt(bytes(32), oaep)

    def alone() -> object:
        return transport.exchange(request)

    def with_rsa() -> object:
        return key.decrypt(encrypted, oaep), transport.exchange(request)

    return alone, with_rsa


def _decrypt_request(real: Enclave, get: bytes) -> bytes:
    """A request that the enclave can answer: its RSA key is in its own document."""
    answer = parse_response(ask(real.address, get))
    if not isinstance(answer, AttestationResponse):
        raise TypeError("the enclave answered an error")
    recipient = load_der_public_key(parse_attestation(answer.attestation).public_key or b"")
    if not isinstance(recipient, rsa.RSAPublicKey):
        raise TypeError("the enclave's key is no RSA key")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    message = parse_message(encrypt(b"attack at dawn", public))
    secret = key.exchange(ec.ECDH(), load_p256_public_key(message.ephemeral_key))
    enveloped = encrypt_for_recipient(secret, recipient)
    challenge = secrets.token_bytes(NONCE_BYTES)
    return encode_request(DecryptRequest(enveloped, message.nonce, message.ciphertext, challenge))
