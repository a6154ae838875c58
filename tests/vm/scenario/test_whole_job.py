"""Create-key, encrypt, decrypt and verify, between a parent and an enclave that differ in nothing
but KMS's authority from those on EC2."""

from pathlib import Path

from foobar_instance.attestation import verify_attestation
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.scenario.conftest import LETTERS, WholeJob, host_cli
from tests.vm.scenario.stage import ALTERED, ENCLAVE, MODULE_IDS, Stage


def test_the_key_is_made_over_the_relay(job: WholeJob, pcr0: dict[str, str]) -> None:
    said = job.created.stderr.decode()
    assert "relay up: vsock:3:1001 to kms.us-east-1.amazonaws.com:443" in said
    assert f"attestation verified, PCR0 {pcr0[ENCLAVE]}" in said
    assert "key arn:aws:kms:us-east-1:123456789012:key/" in said


def test_the_attested_pcrs_are_those_that_measure_prints(
    job: WholeJob, lab: Lab, pcr0: dict[str, str]
) -> None:
    attestation = verify_attestation(job.key, root=lab.authorities.root)
    assert attestation.pcrs[0].hex() == pcr0[ENCLAVE]
    assert {index: attestation.pcrs[index] for index in (0, 1, 2)} == lab.images[ENCLAVE].pcrs
    assert attestation.module_id == MODULE_IDS[ENCLAVE]


def test_the_count_is_right(job: WholeJob) -> None:
    assert job.decrypted.stdout.decode() == f"Count 'a': {LETTERS}\n"
    assert "result verified" in job.decrypted.stderr.decode()


def test_the_proof_verifies_in_the_parent(job: WholeJob) -> None:
    assert job.verified.stdout.decode().startswith(f"Count 'a': {LETTERS}\n")


def test_the_proof_verifies_on_another_machine_and_for_this_enclave_alone(
    job: WholeJob, lab: Lab, measurements: dict[str, Path], tmp_path: Path
) -> None:
    proof = tmp_path / "proof.json"
    proof.write_bytes(job.proof)
    root = tmp_path / "nitro_root.pem"
    root.write_bytes(lab.authorities.files[root.name])
    arguments = ["verify", "--root-path", str(root), "--proof", str(proof)]
    arguments += ["--ciphertext", "-", "--measurements"]
    said = host_cli(*arguments, str(measurements[ENCLAVE]), stdin=job.message)
    assert said.decode().startswith(f"Count 'a': {LETTERS}\n")
    refused = host_cli(*arguments, str(measurements[ALTERED]), stdin=job.message, code=3)
    assert "(rule measurements)" in refused.decode()


def test_the_enclaves_entropy_is_the_nsms(stage: Stage, enclave: Machine) -> None:
    console = enclave.console.read_text(errors="replace")
    before, _, after = console.partition("event=start ")
    assert "event=entropy bytes=256 credited=True" in before
    assert f"pcr0={stage.lab.images[ENCLAVE].pcrs[0].hex()} debug=False" in after
    assert "GetRandom" in stage.nsms[ENCLAVE].requests
