"""The kernel's NSM driver between `foobar_enclave.nsm` and the emulated module."""

import errno
import hashlib
import json
from datetime import timedelta
from typing import Any

import cbor2
import pytest

from foobar_enclave.nsm import NSM_IOCTL_RAW
from foobar_instance.attestation import Attestation, verify_attestation
from tests.vm.aws import all_pcrs
from tests.vm.guest import nsm_requests as asked
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.scenario.stage import MODULE_IDS, PARENT, PROBE, Stage, now, python

REFUSALS = {
    "PCR 32": "InvalidIndex",
    "PCR 65535": "InvalidIndex",
    "PCR 65536": "InvalidIndex",
    "PCR -1": "InvalidIndex",
    "long user data": "InputTooLarge",
    "long nonce": "InputTooLarge",
    "long public key": "InputTooLarge",
    "longer than a request": "InputTooLarge",
    "extend a locked PCR": "ReadOnlyIndex",
    "lock a locked PCR": "ReadOnlyIndex",
    "lock 33 PCRs": "InvalidIndex",
    "no such request": "InvalidOperation",
    "a PCR without number": "InvalidOperation",
    "another device": "InternalError",
}


@pytest.fixture(scope="module")
def answers(stage: Stage) -> dict[str, Any]:
    completed = python(stage.machine(PROBE), asked.__name__)
    assert completed.code == 0, completed.stderr.decode()
    answers: dict[str, Any] = json.loads(completed.stdout)
    return answers


@pytest.fixture(scope="module")
def pcrs(lab: Lab) -> dict[int, bytes]:
    """What the probe's PCRs hold at its start."""
    known = all_pcrs(lab.images[PARENT].pcrs)
    return {index: known.get(index, bytes(48)) for index in range(asked.PCRS)}


def attestation(answers: dict[str, Any], name: str, lab: Lab) -> Attestation:
    document = bytes.fromhex(answers["documents"][name])
    return verify_attestation(
        document, root=lab.authorities.root, at=now(), max_age=timedelta(minutes=5)
    )


def test_the_module_describes_itself(answers: dict[str, Any]) -> None:
    assert answers["describe"] == {
        "version_major": 1,
        "version_minor": 0,
        "version_patch": 0,
        "module_id": MODULE_IDS[PROBE],
        "max_pcrs": asked.PCRS,
        "locked_pcrs": list(range(16)),
        "digest": "SHA384",
    }


def test_every_pcr_is_what_measure_computed(
    answers: dict[str, Any], pcrs: dict[int, bytes]
) -> None:
    assert answers["pcrs"] == [
        {"lock": index < 16, "data": pcrs[index].hex()} for index in range(asked.PCRS)
    ]


def test_random_bytes_are_fresh(answers: dict[str, Any]) -> None:
    first, second = answers["random"]
    assert len(first) == len(second) == 512
    assert first != second


def test_a_document_holds_what_was_given(
    answers: dict[str, Any], pcrs: dict[int, bytes], lab: Lab
) -> None:
    full = attestation(answers, "full", lab)
    assert (full.user_data, full.nonce, full.public_key) == (
        asked.USER_DATA,
        asked.NONCE,
        asked.PUBLIC_KEY,
    )
    assert full.module_id == MODULE_IDS[PROBE]
    assert full.pcrs == {index: pcrs[index] for index in range(16)}


def test_a_document_may_hold_nothing_and_the_most(answers: dict[str, Any], lab: Lab) -> None:
    empty = attestation(answers, "empty", lab)
    assert (empty.user_data, empty.nonce, empty.public_key) == (None, None, None)
    longest = attestation(answers, "longest", lab)
    assert (longest.user_data, longest.nonce, longest.public_key) == asked.LONGEST


def test_what_the_module_refuses_is_our_typed_error(answers: dict[str, Any]) -> None:
    assert answers["refusals"] == REFUSALS


def test_raw_requests_through_the_ioctl(answers: dict[str, Any], pcrs: dict[int, bytes]) -> None:
    assert NSM_IOCTL_RAW == 0xC0200A00
    raw = answers["raw"]
    decoded = {
        name: cbor2.loads(bytes.fromhex(text))
        for name, text in raw.items()
        if not text.startswith("errno")
    }
    assert decoded.pop("describe")["DescribeNSM"]["module_id"] == MODULE_IDS[PROBE]
    assert len(decoded.pop("random")["GetRandom"]["random"]) == 256
    assert decoded.pop("describe PCR 0") == {"DescribePCR": {"lock": True, "data": pcrs[0]}}
    assert raw["too long"] == f"errno {errno.EMSGSIZE}"
    malformed = {"no CBOR", "cut short", "two items", "longest", "empty"}
    assert decoded == {name: {"Error": "InvalidOperation"} for name in malformed}


def test_a_pcr_is_extended_until_it_is_locked(answers: dict[str, Any]) -> None:
    extended = hashlib.sha384(bytes(48) + asked.USER_DATA).hexdigest()
    assert answers["lock"] == [extended, cbor2.dumps("LockPCR").hex(), "ReadOnlyIndex"]
    assert answers["pcr"] == {"lock": True, "data": extended}


def test_the_driver_offers_device_and_random_generator(answers: dict[str, Any]) -> None:
    assert answers["mode"] == "666"
    assert "nsm-hwrng" in answers["hwrng"]


def test_a_machine_without_a_module_is_told_so(parent: Machine) -> None:
    completed = python(parent, "foobar_enclave")
    assert completed.code == 1
    assert completed.stderr.decode().splitlines()[-1] == (
        "foobar-enclave: the Nitro Secure Module failed at opening the device: /dev/nsm: No such "
        "file or directory; this program runs in an enclave"
    )
