"""A key is saved where it is the one that was asked for, and only there."""

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from foobar_instance import create_key as module
from foobar_instance.create_key import Places, create_key
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import (
    EnclaveRefusedError,
    EnclaveUnavailableError,
    FileError,
    InstanceError,
    NotVerifiedError,
    RelayError,
)
from foobar_instance.metadata import InstanceIdentity
from foobar_instance.trust import Trust
from foobar_shared.addresses import Address, TcpAddress, UnixAddress, VsockAddress, listen
from foobar_shared.claims import KeyClaims, ResultClaims
from foobar_shared.key_policy import key_policy, policy_sha256
from foobar_shared.messages import (
    AttestationResponse,
    CreateKeyRequest,
    Credentials,
    ErrorResponse,
    encode_response,
    parse_request,
)
from tests.foobar_instance.conftest import Told
from tests.foobar_instance.peers import answering
from tests.support.documents import (
    ACCOUNT,
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    NOW,
    OTHER_PCR0,
    PCR0,
    REGION,
    ROLE,
    Signer,
)

IDENTITY = InstanceIdentity(
    REGION, ACCOUNT, ROLE, Credentials("ASIAEXAMPLE", "canary-secret", "canary-token")
)
DELETE = "if it was made just now, schedule its deletion in KMS"
Refused = Callable[..., str]


@dataclass
class FakeEnclave:
    """Answers as an enclave does, unless a test changes how."""

    sign: Signer
    claims: KeyClaims = CLAIMS
    user_data: bytes | None = None
    pcr0: bytes = PCR0
    timestamp: datetime = NOW
    nonce: Callable[[bytes | None], bytes | None] = lambda nonce: nonce
    requests: list[CreateKeyRequest] = field(default_factory=list)

    def __call__(self, line: bytes) -> bytes:
        request = parse_request(line)
        assert isinstance(request, CreateKeyRequest)
        self.requests.append(request)
        document = self.sign(
            self.claims.encode() if self.user_data is None else self.user_data,
            nonce=self.nonce(request.nonce),
            pcr0=self.pcr0,
            timestamp=self.timestamp,
        )
        return encode_response(AttestationResponse("createKey", document))


@pytest.fixture(autouse=True)
def instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_identity", lambda _: IDENTITY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "https://localhost:4566")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def enclave(sign: Signer) -> FakeEnclave:
    return FakeEnclave(sign)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "attestation.out"


@pytest.fixture
def run(sign: Signer, told: Told, saved: Path) -> Callable[..., KeyClaims]:
    def run(enclave: Callable[[bytes], bytes], trust: Trust | None = None) -> KeyClaims:
        with answering(enclave) as address:
            places = Places(address, UnixAddress(f"{address.path}r"), saved)
            return create_key(ROLE, places, trust or sign.trust(), told, now=lambda: NOW)

    return run


@pytest.fixture(params=["new", "old"])
def refused(
    request: pytest.FixtureRequest, run: Callable[..., KeyClaims], saved: Path
) -> Iterator[Refused]:
    """Runs into a refusal; whatever the file's content was, it still is."""

    def refused(
        words: str,
        enclave: Callable[[bytes], bytes],
        trust: Trust | None = None,
        kind: type[InstanceError] = NotVerifiedError,
    ) -> str:
        with pytest.raises(kind, match=words) as caught:
            run(enclave, trust)
        text = str(caught.value)
        assert caught.value.exit_code == (3 if kind is NotVerifiedError else 1)
        assert text.isprintable()
        assert "canary" not in text
        return text

    if request.param == "old":
        saved.write_bytes(b"old")
    yield refused
    left = [(path.name, path.read_bytes()) for path in saved.parent.iterdir()]
    assert left == ([("attestation.out", b"old")] if request.param == "old" else [])


def test_a_key_is_made_and_saved(
    enclave: FakeEnclave, run: Callable[..., KeyClaims], saved: Path, sign: Signer, told: Told
) -> None:
    assert run(enclave) == CLAIMS
    attestation = sign.trust().saved(saved.read_bytes(), "it")
    (request,) = enclave.requests
    assert attestation.nonce == request.nonce
    assert request.nonce is not None
    assert replace(request, nonce=None) == CreateKeyRequest(
        REGION, ACCOUNT, ROLE, IDENTITY.credentials
    )
    assert told.warnings == []
    assert told.steps[0] == f"region {REGION}, account {ACCOUNT}, role {ROLE}"
    assert told.steps[1].endswith(" to localhost:4566")
    assert told.steps[2] == f"attestation verified, PCR0 {PCR0.hex()}"
    assert told.steps[3:] == [f"key {KEY_ARN}", f"attestation saved in {saved}"]
    assert "canary" not in repr(told.steps)


def test_no_two_nonces_are_alike(enclave: FakeEnclave, run: Callable[..., KeyClaims]) -> None:
    run(enclave)
    run(enclave)
    first, second = enclave.requests
    assert first.nonce != second.nonce


@pytest.mark.parametrize("nonce", [None, b"", bytes(32)])
def test_another_nonce(enclave: FakeEnclave, refused: Refused, nonce: bytes | None) -> None:
    enclave.nonce = lambda _: nonce
    refused("the key's attestation does not verify: .*nonce", enclave)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_another_time(enclave: FakeEnclave, refused: Refused, minutes: int) -> None:
    enclave.timestamp = NOW + timedelta(minutes=minutes)
    refused("the key's attestation does not verify: .*clock", enclave)


def test_another_enclave(enclave: FakeEnclave, refused: Refused) -> None:
    enclave.pcr0 = OTHER_PCR0
    refused("the key's attestation does not verify: .*PCR0", enclave)


def test_another_enclave_has_another_policy(
    enclave: FakeEnclave, refused: Refused, sign: Signer
) -> None:
    enclave.pcr0 = OTHER_PCR0
    refused("another key policy than the enclave's PCR0 calls for", enclave, sign.trust(None))


def test_any_enclave_where_its_policy_is_right(
    enclave: FakeEnclave, run: Callable[..., KeyClaims], saved: Path, sign: Signer
) -> None:
    policy = key_policy(region=REGION, account_id=ACCOUNT, role=ROLE, pcr0=OTHER_PCR0)
    enclave.pcr0 = OTHER_PCR0
    enclave.claims = replace(CLAIMS, policy_sha256=policy_sha256(policy))
    run(enclave, sign.trust(None))
    assert saved.exists()


def test_debug_mode(enclave: FakeEnclave, refused: Refused, sign: Signer) -> None:
    enclave.pcr0 = DEBUG_PCR0
    refused("the key's attestation does not verify: .*debug", enclave)
    allowing = sign.trust(None, allow_debug=True)
    refused("a key in debug mode: do not use it", enclave, allowing)


@pytest.mark.parametrize("user_data", [b"", b"{}", ResultClaims(bytes(32), 1).encode()])
def test_claims_of_another_type(enclave: FakeEnclave, refused: Refused, user_data: bytes) -> None:
    enclave.user_data = user_data
    refused("the key's attestation does not attest a key", enclave)


def test_another_region(enclave: FakeEnclave, refused: Refused) -> None:
    arn = KEY_ARN.replace(REGION, "eu-west-1")
    enclave.claims = replace(CLAIMS, region="eu-west-1", key_arn=arn)
    refused("not in the region and account that were asked for", enclave)


def test_another_account(enclave: FakeEnclave, refused: Refused) -> None:
    enclave.claims = replace(CLAIMS, key_arn=KEY_ARN.replace(ACCOUNT, "999999999999"))
    refused("not in the region and account that were asked for", enclave)


@pytest.mark.parametrize(
    "changes", [{"role": "other"}, {"pcr0": OTHER_PCR0}, {"account_id": "999999999999"}]
)
def test_another_policy(
    enclave: FakeEnclave, refused: Refused, changes: dict[str, str | bytes]
) -> None:
    asked: dict[str, str | bytes] = {
        "region": REGION,
        "account_id": ACCOUNT,
        "role": ROLE,
        "pcr0": PCR0,
    }
    policy = key_policy(**(asked | changes))  # type: ignore[arg-type]
    enclave.claims = replace(CLAIMS, policy_sha256=policy_sha256(policy))
    refused("another key policy than the enclave's PCR0 calls for", enclave)


def test_an_arn_that_contradicts_the_claims(enclave: FakeEnclave, refused: Refused) -> None:
    enclave.claims = replace(CLAIMS, key_id="another")
    refused("its claims contradict each other", enclave)


@pytest.mark.parametrize("wrong", ["nonce", "measurement", "region", "policy"])
def test_a_key_that_is_not_accepted_is_named(
    enclave: FakeEnclave, refused: Refused, wrong: str
) -> None:
    if wrong == "nonce":
        enclave.nonce = lambda _: None
    elif wrong == "measurement":
        enclave.pcr0 = OTHER_PCR0
    elif wrong == "region":
        enclave.claims = replace(CLAIMS, region="eu-west-1")
    else:
        enclave.claims = replace(CLAIMS, policy_sha256=bytes(32))
    text = refused("the answer names the key", enclave)
    assert text.count(KEY_ARN) == 1
    assert text.endswith(f"names the key {KEY_ARN}: {DELETE}")


def test_a_key_whose_attestation_can_not_be_saved_is_named(
    enclave: FakeEnclave, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, _: bytes) -> None:
        raise FileError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(module, "write_file", fail)
    text = refused("No space left on device", enclave, kind=FileError)
    assert text.endswith(f"names the key {KEY_ARN}: {DELETE}")


def test_a_name_of_any_length_is_no_flood(enclave: FakeEnclave, refused: Refused) -> None:
    enclave.claims = replace(CLAIMS, key_arn="arn:" + "x" * 600)
    assert len(refused("the answer names the key arn:xxx", enclave)) < 1000


@pytest.mark.parametrize("document", [b"", b"hello", b"\x84" * 5000])
def test_an_answer_that_names_no_key(refused: Refused, document: bytes) -> None:
    answer = encode_response(AttestationResponse("createKey", document))
    assert "names the key" not in refused("does not verify", lambda _: answer)


def test_the_enclaves_refusal(refused: Refused) -> None:
    answer = encode_response(ErrorResponse("KMS refused CreateKey"))
    refused("refused createKey: KMS refused", lambda _: answer, kind=EnclaveRefusedError)


def hang_up(_: bytes) -> bytes:
    raise ConnectionError


def test_a_key_that_was_perhaps_made_is_spoken_of(refused: Refused, told: Told) -> None:
    refused("closed the connection|was lost", hang_up, kind=EnclaveUnavailableError)
    (warning,) = told.warnings
    assert warning.startswith("a key may have been made all the same: look in KMS")


def test_an_interrupted_request_may_have_made_a_key(
    enclave: FakeEnclave,
    run: Callable[..., KeyClaims],
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(EnclaveClient, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(enclave)
    assert len(told.warnings) == 1


def test_a_file_that_can_not_be_written_is_known_before_there_is_a_key(
    enclave: FakeEnclave, sign: Signer, told: Told, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "attestation.out", tmp_path / "folder"):
        with answering(enclave) as address:
            places = Places(address, UnixAddress(f"{address.path}r"), path)
            with pytest.raises(FileError, match="cannot write"):
                create_key(ROLE, places, sign.trust(), told, now=lambda: NOW)
    assert enclave.requests == []


def test_no_enclave(sign: Signer, told: Told, saved: Path) -> None:
    places = Places(UnixAddress("/nonexistent"), UnixAddress("/nonexistent/relay"), saved)
    with pytest.raises(EnclaveUnavailableError):
        create_key(ROLE, places, sign.trust(), told, now=lambda: NOW)
    assert not saved.exists()


def no_relay(enclave: FakeEnclave, sign: Signer, relay: Callable[[str], Address]) -> str:
    """The refusal where the relay can't listen: the enclave is asked nothing."""
    with answering(enclave) as address:
        saved = Path(address.path).with_name("attestation.out")
        places = Places(address, relay(address.path), saved)
        with pytest.raises(RelayError, match="the relay") as caught:
            create_key(ROLE, places, sign.trust(), Told(), now=lambda: NOW)
    assert caught.value.exit_code == 1
    assert enclave.requests == []
    return str(caught.value)


def test_a_relay_without_privilege(
    enclave: FakeEnclave, sign: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Address) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "listen", forbidden)
    text = no_relay(enclave, sign, lambda _: VsockAddress(3, 1001))
    assert text.startswith("the relay may not listen at vsock:3:1001: ports below 1024 need root")


def test_a_relay_whose_address_is_in_use(enclave: FakeEnclave, sign: Signer) -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as other:
        taken = TcpAddress("127.0.0.1", other.getsockname()[1])
        text = no_relay(enclave, sign, lambda _: taken)
    assert text.endswith("it is in use; is another create-key running?")


def test_a_relay_in_no_folder(enclave: FakeEnclave, sign: Signer) -> None:
    text = no_relay(enclave, sign, lambda _: UnixAddress("/nonexistent/relay"))
    assert text.endswith("at unix:/nonexistent/relay: No such file or directory")


@pytest.mark.parametrize("enclave_at", [VsockAddress(16, 1000), UnixAddress("/e")])
def test_the_relay_serves_the_enclave_alone(
    monkeypatch: pytest.MonkeyPatch, sign: Signer, told: Told, saved: Path, enclave_at: Address
) -> None:
    seen: list[object] = []

    class StopError(InstanceError):
        pass

    class FakeClient:
        def __init__(self, address: Address) -> None:
            seen.append(address)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            seen.append("closed")

    def relay(listener: object, target: Address, *, allowed_cid: int | None) -> None:
        seen.extend((listener, target, allowed_cid))
        raise StopError

    monkeypatch.setattr(module, "EnclaveClient", FakeClient)
    monkeypatch.setattr(module, "listen", lambda address: address)
    monkeypatch.setattr(module, "Relay", relay)
    places = Places(enclave_at, VsockAddress(3, 1001), saved)
    with pytest.raises(StopError):
        create_key(ROLE, places, sign.trust(), told, now=lambda: NOW)
    cid = 16 if isinstance(enclave_at, VsockAddress) else None
    kms = TcpAddress("localhost", 4566)
    assert seen == [enclave_at, VsockAddress(3, 1001), kms, cid, "closed"]
