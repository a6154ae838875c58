#!/usr/bin/env python3
"""Does what the enclave does, and prints as JSON every file that this took.

Runs in the build of the enclave image, with the interpreter, the packages and the modules that go
into it. What is not in its answer is left out of the image, so it also goes down the ways that end
in refusals. It needs no network and no device.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from cryptography.hazmat.primitives.asymmetric import rsa

READ: set[str] = set()

# Loaded by CPython itself where need arises, at moments that this program does not go through:
# text of other encodings, host names in TLS, reports of exceptions.
UNFORESEEN = (
    "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.punycode",
    "encodings.utf_8", "linecache", "tokenize", "traceback",
)  # fmt: skip


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        READ.add(arguments[0])


def _serve() -> None:
    """The service's program up to its device, which is not here."""
    from foobar_enclave.cms import decrypt_enveloped_data
    from foobar_enclave.errors import EnclaveError
    from foobar_enclave.nsm import NsmDevice

    importlib.import_module("foobar_enclave.__main__")
    with suppress(EnclaveError):
        NsmDevice("/dev/null").describe()
    key = _keys()
    with suppress(EnclaveError):
        decrypt_enveloped_data(b"\x30\x80\x06\x00\x00\x00", key)


def _keys() -> rsa.RSAPrivateKey:
    """Every primitive once; the enclave's kind of key."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from foobar_shared.envelope import decrypt, encrypt, load_p256_public_key, parse_message

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    key.decrypt(key.public_key().encrypt(b"secret", oaep), oaep)
    own = ec.generate_private_key(ec.SECP256R1())
    public = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    message = parse_message(encrypt(b"message", public))
    peer = load_p256_public_key(message.ephemeral_key)
    secret = own.exchange(ec.ECDH(), peer)
    if decrypt(message.nonce, message.ciphertext, secret) != b"message":
        raise ValueError("the envelope does not open")
    return key


def _ask_kms(connect: Callable[[], socket.socket]) -> None:
    """Both requests, as far as they go."""
    from foobar_enclave.errors import EnclaveError
    from foobar_enclave.kms import KmsConnector
    from foobar_shared.messages import Credentials

    credentials = Credentials(access_key_id="AKIA", secret_access_key="none", token="none")  # noqa: S106
    session = KmsConnector(connect, pause=lambda _: None).open("us-east-1", credentials)
    with suppress(EnclaveError):
        session.create_key(policy="{}", description="probe")
    with suppress(EnclaveError):
        session.get_public_key("arn:aws:kms:us-east-1:123456789012:key/probe")


def _hear_kms(status: int, body: bytes) -> None:
    """What the SDK makes of an answer."""
    from botocore.awsrequest import AWSResponse

    from foobar_enclave.kms import KmsTransport

    class Raw:
        def stream(self) -> list[bytes]:
            return [body]

    def answer(*_: object, **__: object) -> object:
        make: Callable[..., object] = AWSResponse
        return make("https://kms.us-east-1.amazonaws.com/", status, {}, Raw())

    send = KmsTransport.send
    setattr(KmsTransport, "send", answer)  # noqa: B010 - an assignment is refused by the types
    _ask_kms(_no_relay)
    setattr(KmsTransport, "send", send)  # noqa: B010


def _no_relay() -> socket.socket:
    raise ConnectionRefusedError


def _silent_relay() -> socket.socket:
    import socket

    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _files() -> dict[str, list[str]]:
    modules = {
        str(module.__file__)
        for module in list(sys.modules.values())
        if getattr(module, "__file__", None) and module.__name__ != "__main__"
    }
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    mapped = {line.split()[5] for line in maps if len(line.split()) == 6}
    return {
        "modules": sorted(modules),
        "read": sorted(READ),
        "mapped": sorted(path for path in mapped if path.startswith("/") and Path(path).is_file()),
    }


if __name__ == "__main__":
    sys.addaudithook(_note)
    for name in UNFORESEEN:
        importlib.import_module(name)
    _serve()
    _ask_kms(_no_relay)
    _ask_kms(_silent_relay)
    _hear_kms(200, b'{"KeyId": "arn:aws:kms:us-east-1:123456789012:key/probe"}')
    _hear_kms(400, b'{"__type": "AccessDeniedException", "message": "no"}')
    _hear_kms(502, b"<html>no JSON")
    json.dump(_files(), sys.stdout)
