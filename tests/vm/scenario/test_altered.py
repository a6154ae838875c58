"""An enclave whose image differs in one byte: refused by the CLI and by KMS, each in its words."""

import pytest

from tests.vm.guest import derive
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.scenario.conftest import LETTERS, WholeJob
from tests.vm.scenario.stage import ALTERED, ENCLAVE, cli, python

KEY = "/root/attestation.out"
MESSAGE = "/root/message"


def test_the_image_differs_in_one_byte(lab: Lab) -> None:
    images = [lab.images[name] for name in (ENCLAVE, ALTERED)]
    first, second = (image.initrd.read_bytes() for image in images)
    assert len(first) == len(second)
    difference = int.from_bytes(first, "big") ^ int.from_bytes(second, "big")
    place = (difference.bit_length() + 7) // 8 - 1  # of the first byte that differs, from the end
    assert 0 < difference >> (8 * place) < 256
    assert difference & ((1 << (8 * place)) - 1) == 0, "and of no other one"
    assert images[0].pcrs[0] != images[1].pcrs[0]
    assert images[0].pcrs[1] == images[1].pcrs[1], "the bootstrap is the same"


@pytest.mark.usefixtures("altered")
def test_the_cli_refuses_it_by_its_measurements(
    parent: Machine, job: WholeJob, pcr0: dict[str, str]
) -> None:
    completed = cli(parent, "decrypt", "--ciphertext", "-", stdin=job.message)
    assert completed.code == 3
    assert completed.stdout == b""
    said = completed.stderr.decode()
    assert "error: the enclave's attestation does not verify: " in said
    assert f"PCR0 is {pcr0[ALTERED]}, not {pcr0[ENCLAVE]}" in said
    assert "(rule measurements)" in said


@pytest.mark.usefixtures("altered")
def test_the_cli_refuses_it_for_anothers_key_where_nothing_is_pinned(
    parent: Machine, job: WholeJob
) -> None:
    arguments = ["decrypt", "--trust-any-enclave", "--ciphertext", "-"]
    completed = cli(parent, *arguments, stdin=job.message)
    assert completed.code == 3
    assert completed.stdout == b""
    assert "has another PCR0 than the key's" in completed.stderr.decode()


@pytest.mark.usefixtures("altered")
def test_kms_refuses_it_to_a_parent_that_does_not_care(parent: Machine, job: WholeJob) -> None:
    parent.agent.write_file(MESSAGE, job.message)
    completed = python(parent, derive.__name__, KEY, MESSAGE)
    assert completed.code == 0, completed.stderr.decode()
    said = completed.stdout.decode()
    assert said.startswith("KMS refused DeriveSharedSecret: AccessDeniedException: ")
    assert "kms:DeriveSharedSecret" in said


@pytest.mark.usefixtures("enclave")
def test_the_right_one_is_back_under_the_same_cid(parent: Machine, job: WholeJob) -> None:
    """A new machine, and a new RSA key in it, for the KMS key that the first one made."""
    parent.agent.write_file(MESSAGE, job.message)
    derived = python(parent, derive.__name__, KEY, MESSAGE)
    assert derived.stdout.decode().startswith("derived "), derived.stdout.decode()
    completed = cli(parent, "decrypt", "--ciphertext", "-", stdin=job.message)
    assert completed.code == 0, completed.stderr.decode()
    assert completed.stdout.decode() == f"Count 'a': {LETTERS}\n"
