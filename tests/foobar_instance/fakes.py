"""An enclave and KMS that answer as the real ones do, unless a test changes how."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from foobar_instance.errors import InstanceError
from foobar_shared import envelope, hpke
from foobar_shared.claims import (
    ComputeClaims,
    KeyClaims,
    ResultClaims,
    hash_of_messages,
    message_hash,
)
from foobar_shared.computation import NAME
from foobar_shared.messages import (
    AttestationResponse,
    ComputeRequest,
    CreateKeyRequest,
    GetAttestationRequest,
    Request,
    encode_response,
    name_of,
    parse_request,
)
from tests.support.documents import CLAIMS, KEY_ARN, NOW, PCR0, PUBLIC_KEY, RESULT, Signer

MESSAGE = envelope.parse_message(envelope.encrypt(b"banana", PUBLIC_KEY))


def sealed(plaintext: bytes = b"banana") -> hpke.SealedMessage:
    """A message of format 2."""
    message = hpke.parse(hpke.seal(plaintext, PUBLIC_KEY, KEY_ARN))
    assert message is not None
    return message


def compute_claims(request: ComputeRequest) -> ComputeClaims:
    """What the enclave says about a request."""
    hashes = [message_hash(message.enc, message.ciphertext) for message in request.messages]
    return ComputeClaims(
        computation=NAME,
        key_arn=request.key_arn,
        messages_sha256=hash_of_messages(hashes),
        messages=len(hashes),
        result=RESULT,
    )


@dataclass
class FakeEnclave:
    """Answers as an enclave does, unless a test changes how."""

    sign: Signer
    pcr0: bytes = PCR0
    timestamp: datetime = NOW
    claims: KeyClaims = CLAIMS
    user_data: bytes | None = None
    key_nonce: Callable[[bytes], bytes | None] = lambda nonce: nonce
    result_nonce: Callable[[bytes], bytes | None] = lambda nonce: nonce
    result: Callable[[bytes], bytes | None] = lambda line: ResultClaims(
        hashlib.sha256(line).digest(), RESULT
    ).encode()
    computed: Callable[[ComputeRequest], bytes | None] = lambda request: compute_claims(
        request
    ).encode()
    result_pcr0: bytes | None = None
    result_timestamp: datetime | None = None
    lines: list[bytes] = field(default_factory=list)

    def __call__(self, line: bytes) -> bytes:
        self.lines.append(line)
        request = parse_request(line)
        if isinstance(request, CreateKeyRequest | GetAttestationRequest):
            assert request.nonce is not None
            user_data = None
            if isinstance(request, CreateKeyRequest):
                user_data = self.claims.encode() if self.user_data is None else self.user_data
            document = self.sign(
                user_data,
                nonce=self.key_nonce(request.nonce),
                pcr0=self.pcr0,
                timestamp=self.timestamp,
            )
            return encode_response(AttestationResponse(name_of(request), document))
        assert request.challenge is not None
        document = self.sign(
            self.computed(request) if isinstance(request, ComputeRequest) else self.result(line),
            nonce=self.result_nonce(request.challenge),
            pcr0=self.pcr0 if self.result_pcr0 is None else self.result_pcr0,
            timestamp=self.result_timestamp or self.timestamp,
        )
        return encode_response(AttestationResponse(name_of(request), document))

    @property
    def requests(self) -> list[Request]:
        return [parse_request(line) for line in self.lines]


@dataclass
class FakeKms:
    """KMS that raises each of `errors` in turn and then answers; makes itself its own client."""

    errors: list[InstanceError] = field(default_factory=list)
    region: str = ""
    asked: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, region: str) -> "FakeKms":
        self.region = region
        return self

    def derive_shared_secret(self, **question: object) -> bytes:
        self.asked.append(question)
        if self.errors:
            raise self.errors.pop(0)
        return b"enveloped"
