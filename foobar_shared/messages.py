"""The requests and responses between parent instance and enclave, one line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from foobar_shared.claims import MAX_KEY_ARN, MAX_MESSAGES
from foobar_shared.encoding import Fields, parse_json_object, to_json
from foobar_shared.errors import MessageError

NONCE_BYTES: Final = 32
"""Length of a request's nonce or challenge, which comes back in the attestation document."""

MAX_ENVELOPED_DATA: Final = 6144
"""Longest `CiphertextForRecipient` in bytes (AWS KMS API, DeriveSharedSecret)."""

# JSON of many small values takes 30 times its size in memory. A message of a request has 3 commas.
_MAX_COMMAS: Final = 8 * MAX_MESSAGES

_ENC_BYTES: Final = 65  # an uncompressed point on P-256 (SEC 1 section 2.3.3)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Temporary IAM credentials of the instance role, in the field names of the SDK for Go."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CreateKeyRequest:
    """Ask for a KMS key locked to the enclave's own PCR0; `nonce` is 32 bytes or None."""

    region: str
    account_id: str
    role: str
    credentials: Credentials
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class GetAttestationRequest:
    """Ask for a document with the enclave's RSA public key; `nonce` is 32 bytes or None."""

    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class DecryptRequest:
    """Hand over what the enclave needs to decrypt a message of format 1.

    `shared_secret` is KMS's `CiphertextForRecipient` (CMS EnvelopedData, BER), `nonce` the 12
    bytes of AES-GCM, `ciphertext` ends in the 16-byte tag, `challenge` is 32 bytes or None.
    """

    shared_secret: bytes = field(repr=False)
    nonce: bytes
    ciphertext: bytes = field(repr=False)
    challenge: bytes | None = None


@dataclass(frozen=True, slots=True)
class ComputeMessage:
    """One message of format 2: KMS's `CiphertextForRecipient` for it, `enc` (65 bytes), `c`."""

    shared_secret: bytes = field(repr=False)
    enc: bytes
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """Hand over messages of format 2 for one result over all of them; `challenge` is 32 bytes.

    `key_arn` and `public_key` (DER SubjectPublicKeyInfo, P-256) are the attested key's. They come
    from the parent and need no trust: a message opens only under the key that it was sealed to.
    """

    key_arn: str
    public_key: bytes
    messages: tuple[ComputeMessage, ...]
    challenge: bytes


Request: TypeAlias = CreateKeyRequest | GetAttestationRequest | DecryptRequest | ComputeRequest
RequestName: TypeAlias = Literal["createKey", "getAttestation", "decrypt", "compute"]

_NAMES: Final[dict[type[Request], RequestName]] = {
    CreateKeyRequest: "createKey",
    GetAttestationRequest: "getAttestation",
    DecryptRequest: "decrypt",
    ComputeRequest: "compute",
}


@dataclass(frozen=True, slots=True)
class AttestationResponse:
    """The name of the request that it answers, and a raw attestation document."""

    name: RequestName
    attestation: bytes


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An enclave's refusal. The text comes from outside: clean it before it reaches a terminal."""

    text: str


Response: TypeAlias = AttestationResponse | ErrorResponse


def name_of(request: Request) -> RequestName:
    """Return the field that holds `request` on the wire."""
    return _NAMES[type(request)]


def encode_request(request: Request) -> bytes:
    """Return `request` as a line without line feed. Optional fields that are None are left out."""
    fields = _request_fields(request)
    return to_json(
        {name_of(request): {name: value for name, value in fields.items() if value is not None}}
    )


def parse_request(line: bytes) -> Request:
    """Parse the request in `line`, which has no line feed.

    Raises:
        MessageError: anything else than exactly one well-formed request; the text says what.
    """
    if line.count(b",") > _MAX_COMMAS:
        raise MessageError(f"more than {_MAX_COMMAS} commas, which no request needs")
    message = parse_json_object(line)
    given = [name for name in _NAMES.values() if message.get(name) is not None]
    if len(given) != 1:
        raise MessageError(
            "exactly one of createKey, getAttestation, decrypt and compute must be set, "
            + (f"not {' and '.join(given)}" if given else "none is")
        )
    (name,) = given
    fields = Fields(name, message[name])
    if name == "createKey":
        return _parse_create_key(fields)
    if name == "getAttestation":
        return GetAttestationRequest(nonce=_nonce(fields, "nonce"))
    if name == "compute":
        return _parse_compute(fields)
    return DecryptRequest(
        shared_secret=fields.data("sharedSecret"),
        nonce=fields.data("nonce"),
        ciphertext=fields.data("ciphertext"),
        challenge=_nonce(fields, "challenge"),
    )


def encode_response(response: Response) -> bytes:
    """Return `response` as a line, without its line feed."""
    if isinstance(response, ErrorResponse):
        return to_json({"error": response.text})
    return to_json({response.name: {"attestation": response.attestation}})


def parse_response(line: bytes) -> Response:
    """Parse the response in `line`, which has no line feed.

    Raises:
        MessageError: anything else than exactly one well-formed response.
    """
    message = parse_json_object(line)
    error = message.get("error")
    names = [name for name in _NAMES.values() if message.get(name) is not None]
    if len(names) + (error is not None) != 1:
        raise MessageError("a response holds exactly one attestation or error")
    for name in names:
        return AttestationResponse(name, Fields(name, message[name]).data("attestation"))
    if not isinstance(error, str):
        raise MessageError("error: not text")
    return ErrorResponse(error)


def _request_fields(request: Request) -> dict[str, object]:
    if isinstance(request, CreateKeyRequest):
        return {
            "region": request.region,
            "accountId": request.account_id,
            "awsIamRole": request.role,
            "credentials": {
                "AccessKeyId": request.credentials.access_key_id,
                "SecretAccessKey": request.credentials.secret_access_key,
                "Token": request.credentials.token,
            },
            "nonce": request.nonce,
        }
    if isinstance(request, GetAttestationRequest):
        return {"nonce": request.nonce}
    if isinstance(request, DecryptRequest):
        return {
            "sharedSecret": request.shared_secret,
            "nonce": request.nonce,
            "ciphertext": request.ciphertext,
            "challenge": request.challenge,
        }
    return {
        "keyArn": request.key_arn,
        "publicKey": request.public_key,
        "messages": [
            {"sharedSecret": message.shared_secret, "e": message.enc, "c": message.ciphertext}
            for message in request.messages
        ],
        "challenge": request.challenge,
    }


def _parse_create_key(fields: Fields) -> CreateKeyRequest:
    credentials = fields.nested("credentials")
    return CreateKeyRequest(
        region=fields.text("region"),
        account_id=fields.text("accountId"),
        role=fields.text("awsIamRole"),
        credentials=Credentials(
            access_key_id=credentials.text("AccessKeyId"),
            secret_access_key=credentials.text("SecretAccessKey"),
            token=credentials.text("Token"),
        ),
        nonce=_nonce(fields, "nonce"),
    )


def _parse_compute(fields: Fields) -> ComputeRequest:
    return ComputeRequest(
        key_arn=fields.text("keyArn", maximum=MAX_KEY_ARN),
        public_key=fields.data("publicKey"),
        messages=tuple(
            ComputeMessage(
                shared_secret=message.data("sharedSecret"),
                enc=message.data("e", length=_ENC_BYTES),
                ciphertext=message.data("c"),
            )
            for message in fields.objects("messages", maximum=MAX_MESSAGES)
        ),
        challenge=fields.data("challenge", length=NONCE_BYTES),
    )


def _nonce(fields: Fields, name: str) -> bytes | None:
    return fields.data(name, length=NONCE_BYTES) if fields.has(name) else None
