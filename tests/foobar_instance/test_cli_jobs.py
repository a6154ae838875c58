"""Each command from its options to its result, with an enclave and KMS that answer at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from foobar_instance.create_key import Places
from foobar_instance.proof import parse_proof
from foobar_instance.trust import Trust
from foobar_shared.addresses import UnixAddress, VsockAddress
from foobar_shared.claims import ResultClaims
from foobar_shared.envelope import encode_message
from tests.foobar_instance.conftest import Run
from tests.foobar_instance.fakes import MESSAGE, FakeEnclave, FakeKms
from tests.foobar_instance.peers import answering
from tests.support.documents import KEY_ARN, NOW, PCR0, REGION, Signer

TEXT = encode_message(MESSAGE)
PINNED = ("--root-path", "root.pem", "--pcr0", PCR0.hex())


@pytest.fixture
def enclave(sign: Signer) -> FakeEnclave:
    return FakeEnclave(sign)


@pytest.fixture
def decrypt(enclave: FakeEnclave, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """The start of a command line that decrypts."""
    monkeypatch.setattr("foobar_instance.decrypt.KmsService", FakeKms())
    monkeypatch.setattr("foobar_instance.commands._now", lambda: NOW)
    with answering(enclave) as address:
        yield ("decrypt", *PINNED, "--enclave", str(address), "--ciphertext", TEXT)


def test_decrypt_prints_the_count_alone(shell: Run, decrypt: tuple[str, ...]) -> None:
    ran = shell(*decrypt)
    assert (ran.code, ran.stdout) == (0, "Count 'a': 3\n")
    assert ran.stderr.splitlines()[-1].startswith("result verified")
    assert ran.stderr.count("proof") == 0


def test_decrypt_prints_json(shell: Run, decrypt: tuple[str, ...]) -> None:
    ran = shell(*decrypt, "-q", "--json")
    assert json.loads(ran.stdout)["count"] == 3
    assert json.loads(ran.stdout)["keyArn"] == KEY_ARN


def test_a_result_that_does_not_verify_leaves_nothing(
    shell: Run, decrypt: tuple[str, ...], enclave: FakeEnclave, folder: Path
) -> None:
    enclave.result = lambda _: ResultClaims(bytes(32), 3).encode()
    ran = shell(*decrypt, "--proof", "result.json")
    assert ran.code == 3
    assert ran.error.startswith("the result's attestation is for another request")
    assert not (folder / "result.json").exists()


def test_a_proof_is_saved_and_verifies(
    shell: Run, decrypt: tuple[str, ...], enclave: FakeEnclave, folder: Path
) -> None:
    ran = shell(*decrypt, "--proof", "result.json")
    assert ran.stdout == "Count 'a': 3\n"
    assert ran.stderr.splitlines()[-1] == "proof saved in result.json"
    proof = parse_proof((folder / "result.json").read_bytes())
    assert proof.key == (folder / "attestation.out").read_bytes()
    assert proof.request == enclave.lines[-1]

    verify = ("verify", *PINNED, "--proof", "result.json", "--ciphertext", TEXT)
    ran = shell(*verify)
    assert ran.code == 0
    assert ran.stdout.splitlines()[0] == "Count 'a': 3"
    assert json.loads(shell(*verify, "--json").stdout)["count"] == 3
    assert shell(*verify, "--attestation-path", "attestation.out").stdout == ran.stdout


def test_a_proof_for_another_key_than_the_known_one(
    shell: Run, decrypt: tuple[str, ...], folder: Path, sign: Signer
) -> None:
    shell(*decrypt, "--proof", "result.json")
    (folder / "other.out").write_bytes(sign.key())
    ran = shell(
        "verify", *PINNED, "--proof", "result.json", "--ciphertext", TEXT,
        "--attestation-path", "other.out",
    )  # fmt: skip
    assert ran.code == 3
    assert ran.error == "the proof is for another key than the one that other.out attests"


def test_create_key_is_told_its_options(shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def create_key(role: str, places: Places, trust: Trust, *_: object, now: object) -> None:
        assert callable(now)
        assert trust.measurements is not None
        seen.extend((role, places, trust.measurements.pcrs[0]))

    monkeypatch.setattr("foobar_instance.create_key.create_key", create_key)
    ran = shell(
        "create-key", *PINNED, "--role", "r", "--enclave", "vsock:17:1000",
        "--proxy-listen", "unix:/relay", "--attestation-path", "key.out",
    )  # fmt: skip
    assert (ran.code, ran.stdout) == (0, "")
    places = Places(VsockAddress(17, 1000), UnixAddress("/relay"), Path("key.out"))
    assert seen == ["r", places, PCR0]


def test_describe_tells_by_its_exit_code_whether_it_verifies(shell: Run) -> None:
    assert shell("describe", "attestation.out", "--root-path", "root.pem").code == 0
    ran = shell("describe", "attestation.out")
    assert ran.code == 3
    assert REGION in ran.stdout


def test_no_secret_is_told_at_debug_level(
    shell: Run, decrypt: tuple[str, ...], enclave: FakeEnclave
) -> None:
    stdin = b"canary of the plaintext"
    told = [shell("encrypt", "-v", *PINNED, "--plaintext", "-", stdin=stdin).stderr]
    told.append(shell(*decrypt, "-v").stderr)
    enclave.result_nonce = lambda _: None
    told.append(shell(*decrypt, "-v").stderr)
    text = "".join(told)
    assert text.count("DEBUG foobar_instance.enclave_client: asking decrypt in ") == 2
    for secret in ("canary", "enveloped", "ZW52ZWxvcGVk", TEXT, stdin.hex()):
        assert secret not in text
