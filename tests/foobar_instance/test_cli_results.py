"""`decrypt` and `verify` from options to results, with an enclave and KMS that answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from foobar_instance.proof import RequestProof, parse_proof
from foobar_shared.claims import ResultClaims
from foobar_shared.encoding import to_base64
from foobar_shared.envelope import encode_message
from tests.foobar_instance.conftest import Run
from tests.foobar_instance.fakes import MESSAGE, FakeEnclave
from tests.foobar_instance.peers import answering, http_answering
from tests.support.documents import KEY_ARN, PCR0, RESULT, Signer

TEXT = encode_message(MESSAGE)
PINNED = ("--root-path", "root.pem", "--pcr0", PCR0.hex())
VERIFY = ("verify", "--proof", "result.json", "--ciphertext", TEXT)


@dataclass
class Job:
    sign: Signer
    enclave: FakeEnclave
    decrypt: tuple[str, ...]


@pytest.fixture
def job(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    now = datetime.now(UTC)
    sign = Signer.create(now)
    enclave = FakeEnclave(sign, timestamp=now)
    (directory / "root.pem").write_bytes(sign.root_pem)
    (directory / "attestation.out").write_bytes(sign.key(timestamp=now))
    fields = {"KeyId": KEY_ARN, "CiphertextForRecipient": to_base64(b"enveloped")}
    answer = (200, json.dumps(fields).encode())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with answering(enclave) as address, http_answering(lambda _: answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        decrypt = ("decrypt", *PINNED, "--enclave", str(address), "--ciphertext", TEXT)
        yield Job(sign, enclave, decrypt)


def test_json_says_what_the_result_rests_on(shell: Run, job: Job) -> None:
    facts = json.loads(shell(*job.decrypt, "-q", "--json", "--proof", "result.json").stdout)
    assert facts == facts | RESULT.fields()
    rests_on = {
        "keyArn": KEY_ARN,
        "root": f"the root with SHA-256 {job.sign.root.fingerprint(SHA256()).hex()}",
        "pinned": {"PCR0": PCR0.hex()},
        "pinnedBy": ["--pcr0"],
        "debug": False,
    }
    assert facts == facts | rests_on
    ran = shell(*VERIFY, *PINNED[:2], "--json", FOOBAR_PCR0=PCR0.hex())
    assert json.loads(ran.stdout) == facts | {"pinnedBy": ["FOOBAR_PCR0"]}


def test_a_result_that_does_not_verify_leaves_nothing(
    shell: Run, job: Job, directory: Path
) -> None:
    job.enclave.result = lambda _: ResultClaims(bytes(32), RESULT).encode()
    ran = shell(*job.decrypt, "--proof", "result.json")
    assert ran.code == 3
    assert ran.error.startswith("the result's attestation is for another request")
    assert not (directory / "result.json").exists()


def test_a_proof_is_saved_and_verifies(shell: Run, job: Job, directory: Path) -> None:
    ran = shell(*job.decrypt, "--proof", "result.json")
    assert ran.stdout == f"{RESULT}\n"
    assert ran.stderr.splitlines()[-1] == "proof saved in result.json"
    proof = parse_proof((directory / "result.json").read_bytes())
    assert proof.key == (directory / "attestation.out").read_bytes()
    assert isinstance(proof, RequestProof)
    assert proof.request == job.enclave.lines[-1]

    ran = shell(*VERIFY, *PINNED)
    assert ran.code == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == str(RESULT)
    assert lines[5:] == ["pinned by: --pcr0", "mode:      production"]
    assert shell(*VERIFY, *PINNED, "--attestation-path", "attestation.out").stdout == ran.stdout

    (directory / "other.out").write_bytes(job.sign.key())
    ran = shell(*VERIFY, *PINNED, "--attestation-path", "other.out")
    assert ran.code == 3
    assert ran.error == "the proof is for another key than the one that other.out attests"


def test_no_secret_is_told_at_debug_level(shell: Run, job: Job) -> None:
    stdin = b"canary of the plaintext"
    told = [shell("encrypt", "-v", *PINNED, "--plaintext", "-", stdin=stdin).stderr]
    told.append(shell(*job.decrypt, "-v").stderr)
    job.enclave.result_nonce = lambda _: None
    told.append(shell(*job.decrypt, "-v").stderr)
    text = "".join(told)
    assert text.count("DEBUG foobar_instance.enclave_client: asking decrypt in ") == 2
    for secret in ("canary", "enveloped", "ZW52ZWxvcGVk", TEXT, stdin.hex()):
        assert secret not in text
