"""A proof: written by decrypt, verified by a third person who has nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from emulator.recipient_cms import encrypt_for_recipient
from foobar_instance.attestation import parse_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.proof import MessagesProof, hashes_of
from foobar_shared.claims import parse_key_claims
from foobar_shared.computation import compute
from foobar_shared.hpke import SealedMessage, parse_message, seal
from foobar_shared.messages import ComputeMessage, ComputeRequest, GetAttestationRequest
from tests.e2e.conftest import printed
from tests.e2e.hostile import Exchange, enclave_in_the_middle

PROGRAM = Path(sys.executable).with_name("foobar-instance")


@pytest.fixture(params=["1", "2"])
def proven(keyed: InstanceCli, request: pytest.FixtureRequest) -> tuple[InstanceCli, str]:
    encrypt = ("encrypt", "--format", request.param, "--plaintext", "attack at dawn")
    message = keyed.done(*encrypt).decode().strip()
    keyed.done("decrypt", "--ciphertext", message, "--proof", "result.json")
    return keyed, message


def third_person(folder: Path, emulator: Emulator, *arguments: str) -> tuple[int, str, str]:
    """`verify` on another machine: no environment, no network, only a root and a PCR0."""
    result = subprocess.run(
        [PROGRAM, "verify", "--root-path", str(emulator.root_path), *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.threat("6")
def test_a_third_person_verifies_the_result(
    proven: tuple[InstanceCli, str], emulator: Emulator
) -> None:
    cli, message = proven
    pcr0 = emulator.enclave.measurements.pcr0.hex()
    options = ("--proof", "result.json", "--ciphertext", message, "--pcr0", pcr0)
    code, output, _ = third_person(cli.directory, emulator, *options)
    assert code == 0
    assert output.encode().startswith(printed(b"attack at dawn"))
    assert pcr0 in output
    code, output, _ = third_person(cli.directory, emulator, *options, "--json")
    facts = json.loads(output)
    assert (code, facts) == (0, facts | compute([b"attack at dawn"]).fields())
    known = ("--attestation-path", "attestation.out")
    assert third_person(cli.directory, emulator, *options, *known)[0] == 0


def test_what_a_proof_is_not_for(proven: tuple[InstanceCli, str], emulator: Emulator) -> None:
    cli, message = proven
    proof = ("--proof", "result.json")
    pcr0 = ("--pcr0", emulator.enclave.measurements.pcr0.hex())
    other = cli.done("encrypt", "--plaintext", "attack at dawn").decode().strip()
    code, output, error = third_person(
        cli.directory, emulator, *proof, *pcr0, "--ciphertext", other
    )
    assert (code, output) == (3, "")
    assert "another ciphertext" in error or "other messages" in error
    wrong = ("--pcr0", "ab" * 48, "--ciphertext", message)
    code, output, error = third_person(cli.directory, emulator, *proof, *wrong)
    assert (code, output) == (3, "")
    assert "PCR0" in error
    assert third_person(cli.directory, emulator, *proof, "--ciphertext", message)[0] == 2
    cli.done("create-key")
    known = ("--attestation-path", "attestation.out", "--ciphertext", message)
    code, output, error = third_person(cli.directory, emulator, *proof, *pcr0, *known)
    assert (code, output) == (3, "")
    assert "another key" in error


@pytest.mark.threat("7")
def test_a_key_pair_of_the_parents_own_under_the_arn_is_not_told_from_the_kms_key(
    keyed: InstanceCli, emulator: Emulator
) -> None:
    """The limit that docs/proof.md states: only what `encrypt` made is bound to the KMS key."""
    key = keyed.attestation.read_bytes()
    key_arn = parse_key_claims(parse_attestation(key).user_data).key_arn
    own = ec.generate_private_key(ec.SECP256R1())
    public_key = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = seal(b"banana", public_key, key_arn)
    message = parse_message(text)
    assert isinstance(message, SealedMessage)
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.enc)
    with EnclaveClient(emulator.enclave.address) as enclave:
        answer = parse_attestation(enclave.ask(GetAttestationRequest(bytes(32))))
        rsa_key = load_der_public_key(answer.public_key or b"")
        assert isinstance(rsa_key, rsa.RSAPublicKey)
        secret = encrypt_for_recipient(own.exchange(ec.ECDH(), sender), rsa_key)
        sent = ComputeMessage(secret, message.enc, message.ciphertext)
        result = enclave.ask(ComputeRequest(key_arn, public_key, (sent,), bytes(32)))
    proof = keyed.directory / "result.json"
    proof.write_bytes(MessagesProof(key, result, hashes_of([message])).encode())
    pcr0 = emulator.enclave.measurements.pcr0.hex()
    given = ("--proof", "result.json", "--ciphertext", text, "--pcr0", pcr0)
    assert third_person(keyed.directory, emulator, *given)[:1] == (0,)


def test_no_proof_of_a_result_that_does_not_verify(keyed: InstanceCli, emulator: Emulator) -> None:
    def swap(line: bytes, exchange: Exchange) -> bytes:
        request = json.loads(line)
        if "decrypt" in request:
            line = json.dumps(request).encode()  # the same request in another spelling
        return exchange(line)

    message = keyed.done("encrypt", "--format", "1", "--plaintext", "banana")
    arguments = ("decrypt", "--ciphertext", "-", "--proof", "result.json")
    with enclave_in_the_middle(emulator.enclave.address, swap) as address:
        result = keyed(*arguments, stdin=message, FOOBAR_ENCLAVE=address)
    assert result.returncode == 3
    assert not (keyed.directory / "result.json").exists()


def test_verify_and_describe_need_no_aws_sdk(
    proven: tuple[InstanceCli, str], emulator: Emulator
) -> None:
    cli, message = proven
    script = (
        "import sys; from foobar_instance.cli import run; code = run(sys.argv[1:]); "
        "print([m for m in ('boto3', 'botocore', 'asn1crypto') if m in sys.modules], code)"
    )
    root = ("--root-path", str(emulator.root_path))
    pcr0 = ("--pcr0", emulator.enclave.measurements.pcr0.hex())
    for arguments in (
        ("verify", *root, *pcr0, "--proof", "result.json", "--ciphertext", message),
        ("describe", *root, "attestation.out"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=cli.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert result.stdout.splitlines()[-1] == "[] 0", result.stderr


def test_describe_shows_the_documents_of_the_service(keyed: InstanceCli) -> None:
    output = keyed.done("describe", "attestation.out").decode()
    assert "foobar/create-key/1" in output
    assert "\nVERIFIED under" in output
    assert max(map(len, output.splitlines())) <= 80
