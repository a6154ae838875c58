"""A key is saved where it is the one that was asked for, and only there."""

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from foobar_instance.create_key import Places, create_key, start_relay
from foobar_instance.errors import (
    EnclaveRefusedError,
    EnclaveUnavailableError,
    FileError,
    InstanceError,
    NotVerifiedError,
    RelayError,
    UsageError,
)
from foobar_instance.metadata import InstanceIdentity
from foobar_instance.trust import Trust
from foobar_shared.addresses import Address, TcpAddress, UnixAddress, VsockAddress, connect, listen
from foobar_shared.claims import KeyClaims, ResultClaims
from foobar_shared.key_policy import key_policy, policy_sha256
from foobar_shared.messages import (
    AttestationResponse,
    CreateKeyRequest,
    Credentials,
    ErrorResponse,
    encode_response,
)
from tests.foobar_instance.conftest import Told
from tests.foobar_instance.fakes import FakeEnclave
from tests.foobar_instance.peers import answering
from tests.support.documents import (
    ACCOUNT,
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    KEY_ID,
    NOW,
    OTHER_PCR0,
    PCR0,
    REGION,
    RESULT,
    ROLE,
    Signer,
)

IDENTITY = InstanceIdentity(
    REGION, ACCOUNT, ROLE, Credentials("ASIAEXAMPLE", "canary-secret", "canary-token")
)
DELETE = "if it was made just now, schedule its deletion in KMS"
KMS = TcpAddress("localhost", 4566)
Answer = Callable[[bytes], bytes]


@dataclass
class Job:
    """A key that is asked for, and where it is saved."""

    sign: Signer
    saved: Path
    enclave: FakeEnclave
    told: Told = field(default_factory=Told)
    role: str = ROLE

    def run(self, answer: Answer | None = None, trust: Trust | None = None) -> KeyClaims:
        with answering(answer or self.enclave) as address:
            return self.run_at(address, UnixAddress(f"{address.path}r"), trust)

    def run_at(self, enclave: Address, relay: Address, trust: Trust | None = None) -> KeyClaims:
        places = Places(enclave, relay, self.saved)
        trust = trust or self.sign.trust()
        return create_key(
            self.role, places, trust, self.told, now=lambda: NOW, identify=lambda _: IDENTITY
        )

    def refused(
        self,
        words: str,
        answer: Answer | None = None,
        *,
        trust: Trust | None = None,
        kind: type[InstanceError] = NotVerifiedError,
    ) -> str:
        """Runs into a refusal; what was saved before is still there, and nothing else."""
        self.saved.write_bytes(b"old")
        with pytest.raises(kind, match=words) as caught:
            self.run(answer, trust)
        text = str(caught.value)
        assert caught.value.exit_code == (3 if kind is NotVerifiedError else 1)
        assert text.isprintable()
        assert "canary" not in text
        assert [(path, path.read_bytes()) for path in self.saved.parent.iterdir()] == [
            (self.saved, b"old")
        ]
        return text


@pytest.fixture
def job(sign: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "https://localhost:4566")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    job = Job(sign, tmp_path / "attestation.out", FakeEnclave(sign))
    yield job
    assert "canary" not in repr((job.told.steps, job.told.notes, job.told.warnings))


def test_a_key_is_made_and_saved(job: Job) -> None:
    assert job.run() == CLAIMS
    attestation = job.sign.trust().verify_saved(job.saved.read_bytes(), "it")
    (request,) = job.enclave.requests
    assert isinstance(request, CreateKeyRequest)
    assert attestation.nonce == request.nonce
    assert request.nonce is not None
    assert replace(request, nonce=None) == CreateKeyRequest(
        REGION, ACCOUNT, ROLE, IDENTITY.credentials
    )
    assert job.told.warnings == job.told.notes == []
    assert job.told.steps[0] == f"region {REGION}, account {ACCOUNT}, role {ROLE}"
    assert job.told.steps[1].endswith(" to localhost:4566")
    assert job.told.steps[2] == f"attestation verified, PCR0 {PCR0.hex()}"
    assert job.told.steps[3:] == [f"key {KEY_ARN}", f"attestation saved in {job.saved}"]


@pytest.mark.parametrize(
    "role", [f"arn:aws:iam::{ACCOUNT}:role/{ROLE}", f"service/{ROLE}", f"/service/{ROLE}"]
)
def test_a_role_that_is_not_given_by_its_name(job: Job, role: str) -> None:
    job.role = role
    with pytest.raises(UsageError, match=f"the name alone, '{ROLE}' and not .*role/NAME$"):
        job.run()
    assert job.enclave.requests == []


def test_a_role_name_that_is_none(job: Job) -> None:
    job.role = "a role"
    with pytest.raises(UsageError, match=r"^--role: not a valid AWS role name \(.*\)$"):
        job.run()


def test_a_root_of_another_partition_is_known_before_there_is_a_key(job: Job) -> None:
    trust = replace(job.sign.trust(), partition="aws-us-gov")
    with pytest.raises(UsageError, match=r"give --partition aws$"):
        job.run(trust=trust)
    assert job.enclave.requests == []


def test_no_two_nonces_are_alike(job: Job) -> None:
    job.run()
    job.run()
    first, second = job.enclave.requests
    assert isinstance(first, CreateKeyRequest)
    assert isinstance(second, CreateKeyRequest)
    assert first.nonce != second.nonce


ORIGINAL = b'{"keyId":"%s","pubKey":"AAAA","Region":"us-east-1"}' % KEY_ID.encode()
OLD_ID = "01234567-89ab-4cde-8f01-23456789abcd"


@pytest.mark.parametrize(
    ("key_id", "name"),
    [
        (OLD_ID, f"attestation.{OLD_ID}.out"),
        ("../../../../etc/cron.d/aaaaaaaaaaaaaa", "attestation.1.out"),
        (OLD_ID.upper(), "attestation.1.out"),
        (None, "attestation.1.out"),
    ],
)
def test_the_attestation_of_another_key_is_renamed_and_said(
    job: Job, key_id: str | None, name: str
) -> None:
    arn = KEY_ARN.replace(KEY_ID, str(key_id))
    old = job.sign.key(key_id=key_id, key_arn=arn) if key_id else b"not an attestation"
    job.saved.write_bytes(old)
    job.saved.chmod(0o600)
    job.run()
    kept = job.saved.with_name(name)
    assert kept.read_bytes() == old
    assert kept.stat().st_mode & 0o777 == 0o600
    assert job.sign.trust().verify_saved(job.saved.read_bytes(), "it").nonce
    assert job.told.notes == [f"the attestation that was in {job.saved} is now in {kept}"]


def test_no_kept_attestation_is_replaced(job: Job) -> None:
    for _ in range(4):
        job.run()
    names = [f"attestation{name}.out" for name in ("", ".1", f".{KEY_ID}", ".2")]
    paths = [job.saved.with_name(name) for name in names]
    assert sorted(job.saved.parent.iterdir()) == sorted(paths)
    assert len({path.read_bytes() for path in paths}) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_nonce": lambda _: None}, "verify: .*nonce"),
        ({"key_nonce": lambda _: b""}, "verify: .*nonce"),
        ({"key_nonce": lambda _: bytes(32)}, "verify: .*nonce"),
        ({"timestamp": NOW - timedelta(minutes=6)}, "verify: .*clock"),
        ({"timestamp": NOW + timedelta(minutes=6)}, "verify: .*clock"),
        ({"pcr0": OTHER_PCR0}, "verify: .*PCR0"),
        ({"pcr0": DEBUG_PCR0}, "verify: .*debug"),
        ({"user_data": b""}, "attest a key"),
        ({"user_data": b"{}"}, "attest a key"),
        ({"user_data": ResultClaims(bytes(32), RESULT).encode()}, "attest a key"),
        ({"claims": replace(CLAIMS, key_id="another")}, "attest a key: .*contradict each other"),
    ],
)
def test_an_attestation_that_does_not_verify(
    job: Job, changes: dict[str, object], words: str
) -> None:
    job.enclave = replace(job.enclave, **changes)  # type: ignore[arg-type]
    job.refused(f"the key's attestation does not {words}")


def test_debug_mode_even_where_it_is_allowed(job: Job) -> None:
    job.enclave.pcr0 = DEBUG_PCR0
    allowing = job.sign.trust(None, allow_debug=True)
    job.refused("a key in debug mode: do not use it", trust=allowing)


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "eu-west-1", "key_arn": KEY_ARN.replace(REGION, "eu-west-1")},
        {"key_arn": KEY_ARN.replace(ACCOUNT, "999999999999")},
    ],
)
def test_another_region_or_account(job: Job, changes: dict[str, str]) -> None:
    job.enclave.claims = replace(CLAIMS, **changes)  # type: ignore[arg-type]
    job.refused("not in the region and account that were asked for")


def policy_of(**changes: str | bytes) -> bytes:
    asked = {"region": REGION, "account_id": ACCOUNT, "role": ROLE, "pcr0": PCR0}
    return policy_sha256(key_policy(**(asked | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"role": "other"}, {"pcr0": OTHER_PCR0}, {"account_id": "999999999999"}]
)
def test_another_policy(job: Job, changes: dict[str, str | bytes]) -> None:
    job.enclave.claims = replace(CLAIMS, policy_sha256=policy_of(**changes))
    job.refused("another key policy than the enclave's PCR0 calls for")


def test_any_enclave_is_trusted_where_its_policy_is_right(job: Job) -> None:
    job.enclave.pcr0 = OTHER_PCR0
    job.refused("another key policy", trust=job.sign.trust(None))
    job.enclave.claims = replace(CLAIMS, policy_sha256=policy_of(pcr0=OTHER_PCR0))
    job.run(trust=job.sign.trust(None))


@pytest.mark.parametrize("nonce", [None, b""])
def test_the_originals_enclave_is_told_from_a_replay_and_its_key_is_named(
    job: Job, nonce: bytes | None
) -> None:
    job.enclave.user_data = ORIGINAL.replace(b"}", b',"keyArn":5}') if nonce is None else ORIGINAL
    job.enclave.key_nonce = lambda _: nonce
    text = job.refused("from the original's enclave or an older one: build and run")
    assert "replays" not in text
    assert text.endswith(f"names the key {KEY_ID}: {DELETE}")


def test_a_key_whose_attestation_can_not_be_saved_is_named(job: Job) -> None:
    def answer(line: bytes) -> bytes:
        job.saved.parent.rmdir()
        return job.enclave(line)

    with pytest.raises(FileError, match="No such file or directory") as caught:
        job.run(answer)
    assert str(caught.value).endswith(f"names the key {KEY_ARN}: {DELETE}")


def test_a_name_of_any_length_is_no_flood(job: Job) -> None:
    job.enclave.claims = replace(CLAIMS, key_arn="arn:" + "x" * 600)
    assert len(job.refused("the answer names the key arn:xxx")) < 1000


@pytest.mark.parametrize("document", [b"", b"hello", b"\x84" * 5000])
def test_an_answer_that_names_no_key(job: Job, document: bytes) -> None:
    answer = encode_response(AttestationResponse("createKey", document))
    assert "names the key" not in job.refused("does not verify", lambda _: answer)


def test_the_enclaves_refusal(job: Job) -> None:
    answer = encode_response(ErrorResponse("KMS refused CreateKey"))
    job.refused("refused createKey: KMS refused", lambda _: answer, kind=EnclaveRefusedError)
    assert job.told.warnings == []


def test_the_relays_reason_stands_beside_the_enclaves(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"https://127.0.0.1:{port}")
        with answering(job.enclave) as unused:
            relay = UnixAddress(f"{unused.path}r")

            def cut(_: bytes) -> bytes:
                with connect(relay, seconds=5) as kms:
                    assert kms.recv(1) == b""
                return encode_response(ErrorResponse("no answer from KMS: Broken pipe"))

            words = f"Broken pipe; the relay can't reach 127.0.0.1:{port}: Connection refused$"
            with answering(cut) as enclave, pytest.raises(EnclaveRefusedError, match=words):
                job.run_at(enclave, relay)


def test_a_key_that_was_perhaps_made_is_spoken_of(job: Job) -> None:
    def hang_up(_: bytes) -> bytes:
        raise ConnectionError

    job.refused("closed the connection|was lost", hang_up, kind=EnclaveUnavailableError)
    (warning,) = job.told.warnings
    assert warning.startswith("a key may have been made all the same: look in KMS")


def test_an_interrupted_request_may_have_made_a_key(job: Job) -> None:
    def interrupt(_: bytes) -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        job.run(interrupt)
    assert len(job.told.warnings) == 1


def test_an_interruption_after_the_answer_does_not_hide_the_key(job: Job) -> None:
    class Interrupting(Told):
        def step(self, text: str) -> None:
            if text.startswith("attestation verified"):
                raise KeyboardInterrupt

    job.told = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        job.run()
    (warning,) = job.told.warnings
    assert warning.startswith("a key may have been made all the same: look in KMS")


def test_a_file_that_can_not_be_written_is_known_before_there_is_a_key(job: Job) -> None:
    for path in (job.saved.parent / "missing" / "attestation.out", job.saved.parent):
        job.saved = path
        with pytest.raises(FileError, match="cannot write"):
            job.run()
    assert job.enclave.requests == []


def test_a_relay_that_can_not_listen_is_known_before_there_is_a_key(job: Job) -> None:
    with answering(job.enclave) as address, pytest.raises(RelayError, match="No such file") as one:
        job.run_at(address, UnixAddress("/nonexistent/relay"))
    assert one.value.exit_code == 1
    assert job.enclave.requests == []


def places(relay: Address, enclave: Address | None = None) -> Places:
    return Places(enclave or UnixAddress("/e"), relay, Path("attestation.out"))


@pytest.mark.threat("15")
def test_a_relay_without_privilege() -> None:
    def forbidden(_: Address) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    words = "the relay may not listen at vsock:3:1001: ports below 1024 need root"
    with pytest.raises(RelayError, match=words):
        start_relay(places(VsockAddress(3, 1001)), KMS, listen=forbidden)


@pytest.mark.threat("16")
def test_a_relay_whose_address_is_in_use() -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as other:
        taken = TcpAddress("127.0.0.1", other.getsockname()[1])
        with pytest.raises(RelayError, match=r"it is in use; is another create-key running\?"):
            start_relay(places(taken), KMS)


@pytest.mark.parametrize(
    ("enclave", "cid"), [(VsockAddress(16, 1000), 16), (UnixAddress("/e"), None)]
)
def test_the_relay_serves_the_enclave_alone(enclave: Address, cid: int | None) -> None:
    seen: list[object] = []

    def relay(*given: object, allowed_cid: int | None) -> None:
        seen.extend((*given, allowed_cid))

    where = VsockAddress(3, 1001)
    start_relay(
        places(where, enclave), KMS, listen=lambda address: address, relay=relay  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    assert seen == [where, KMS, cid]
