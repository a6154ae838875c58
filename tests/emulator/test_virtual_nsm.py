from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.pki import NitroPki
from emulator.virtual_nsm import EmulatedNsm
from foobar_instance.attestation import Attestation, verify_attestation
from tests.support.vectors import vector_path

MODULE = "i-0123456789abcdef0-enc0123456789abcdef"
ZERO = bytes(48)
NOW = datetime.now(UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_nsm(pki: NitroPki, clock: Clock | None = None, **pcrs: bytes) -> EmulatedNsm:
    return EmulatedNsm(
        pki,
        module_id=MODULE,
        pcrs={int(name[3:]): value for name, value in pcrs.items()},
        clock=clock or Clock(),
    )


@pytest.fixture
def nsm(pki: NitroPki, clock: Clock) -> EmulatedNsm:
    return make_nsm(pki, clock, pcr0=b"\1" * 48, pcr4=b"\4" * 48)


def ask(nsm: EmulatedNsm, request: object) -> object:
    return cbor2.loads(nsm.exchange(cbor2.dumps(request)))


def extend(nsm: EmulatedNsm, index: int, data: object) -> object:
    return ask(nsm, {"ExtendPCR": {"index": index, "data": data}})


def attest(nsm: EmulatedNsm, pki: NitroPki, clock: Clock, **fields: bytes | None) -> Attestation:
    unset: dict[str, bytes | None] = dict.fromkeys(("user_data", "nonce", "public_key"))
    answer = ask(nsm, {"Attestation": unset | fields})
    assert isinstance(answer, dict)
    document = answer["Attestation"]["document"]
    return verify_attestation(document, root=pki.root, at=clock.now, allow_debug=True)


def golden(kind: str) -> dict[str, bytes]:
    entries = json.loads(vector_path(f"nsm/nsm_{kind}.json").read_text())[kind]
    return {entry["name"]: bytes.fromhex(entry["cbor"]) for entry in entries}


def test_every_golden_request_is_answered(pki: NitroPki) -> None:
    for name, request in golden("requests").items():
        answer = cbor2.loads(make_nsm(pki).exchange(request))
        expected = name.split()[0]
        if name == "DescribePCR index=65535":
            assert answer == {"Error": "InvalidIndex"}
        else:
            assert answer == expected or list(answer) == [expected], name


def test_responses_are_encoded_as_awss_encoder_does(pki: NitroPki) -> None:
    responses = golden("responses")
    nsm = make_nsm(pki, pcr1=b"\x11" * 48)
    requests = {
        "DescribePCR lock=true data=11*48": {"DescribePCR": {"index": 1}},
        "DescribePCR lock=false data=00*48": {"DescribePCR": {"index": 16}},
        "DescribeNSM 1.0.0 max_pcrs=32 locked=0..15 SHA384": "DescribeNSM",
        "Error InvalidIndex": {"DescribePCR": {"index": 32}},
        "LockPCR": {"LockPCR": {"index": 16}},
        "LockPCRs": {"LockPCRs": {"range": 32}},
    }
    for name, request in requests.items():
        assert nsm.exchange(cbor2.dumps(request)) == responses[name], name
    assert nsm.exchange(bytes(4097)) == responses["Error InputTooLarge"]


def test_extend_random_and_attest_responses_have_the_golden_form(pki: NitroPki) -> None:
    responses = golden("responses")
    nsm = make_nsm(pki)
    extended = nsm.exchange(cbor2.dumps({"ExtendPCR": {"index": 16, "data": b"x"}}))
    form = responses["ExtendPCR data=22*48"]
    assert (extended[:-48], len(extended)) == (form[:-48], len(form))
    random = nsm.exchange(cbor2.dumps("GetRandom"))
    form = responses["GetRandom random=0..255"]
    assert (random[:-256], len(random)) == (form[:-256], len(form))
    assert random != nsm.exchange(cbor2.dumps("GetRandom"))
    document = nsm.exchange(cbor2.dumps({"Attestation": {}}))
    assert document.startswith(responses["Attestation document=d2845000"][:-5])
    assert len(document) <= 0x3000


def test_a_pcr_is_extended_until_it_is_locked(nsm: EmulatedNsm) -> None:
    value = ZERO
    for data in (b"", b"abc", bytes(300)):
        value = hashlib.sha384(value + data).digest()
        assert extend(nsm, 31, data) == {"ExtendPCR": {"data": value}}
    assert ask(nsm, {"DescribePCR": {"index": 31}}) == {
        "DescribePCR": {"lock": False, "data": value}
    }
    assert ask(nsm, {"LockPCR": {"index": 16}}) == "LockPCR"
    for index, error in ((15, "ReadOnlyIndex"), (16, "ReadOnlyIndex"), (32, "InvalidIndex")):
        assert extend(nsm, index, b"x") == {"Error": error}
        assert ask(nsm, {"LockPCR": {"index": index}}) == {"Error": error}
    assert extend(nsm, 17, "x") == {"Error": "InvalidOperation"}
    assert ask(nsm, {"LockPCRs": {"range": 33}}) == {"Error": "InvalidIndex"}
    assert ask(nsm, {"LockPCRs": {"range": 18}}) == "LockPCRs"
    description = ask(nsm, "DescribeNSM")
    assert isinstance(description, dict)
    assert description["DescribeNSM"]["locked_pcrs"] == list(range(18))


@pytest.mark.parametrize(
    "request_",
    [
        *map(
            cbor2.dumps,
            (
                *("Unknown", "describeNSM", {}, [], 0, None),
                {"Unknown": {}},
                {"DescribePCR": 0},
                {"DescribePCR": {}},
                {"DescribePCR": {"index": -1}},
                {"DescribePCR": {"index": 65536}},
                {"DescribePCR": {"index": True}},
                {"DescribePCR": {"index": 0}, "LockPCR": {"index": 16}},
                {"DescribePCR": {"index": 0, "x": [[[[[]]]]]}},
                {"Attestation": {"nonce": "text"}},
            ),
        ),
        b"",
        cbor2.dumps("GetRandom") + b"\0",
        b"\xa2" + 2 * cbor2.dumps({"DescribePCR": {"index": 0}})[1:],
    ],
)
def test_what_is_no_request_is_an_invalid_operation(nsm: EmulatedNsm, request_: bytes) -> None:
    assert cbor2.loads(nsm.exchange(request_)) == {"Error": "InvalidOperation"}


@given(request_=st.binary(max_size=200))
def test_any_bytes_are_answered(pki: NitroPki, request_: bytes) -> None:
    answer = cbor2.loads(make_nsm(pki).exchange(request_))
    assert isinstance(answer, dict | str)


def test_indefinite_maps_and_unknown_fields_are_taken(nsm: EmulatedNsm) -> None:
    request = bytes.fromhex("bf6b4465736372696265504352bf65696e6465780061780affff")
    assert cbor2.loads(nsm.exchange(request)) == {"DescribePCR": {"lock": True, "data": b"\1" * 48}}


@pytest.mark.parametrize("value", [None, b"", b"x", bytes(1024)])
def test_a_document_carries_what_was_asked_for(
    nsm: EmulatedNsm, pki: NitroPki, clock: Clock, value: bytes | None
) -> None:
    document = attest(nsm, pki, clock, user_data=value, nonce=value, public_key=value)
    assert (document.user_data, document.nonce, document.public_key) == (value, value, value)
    assert (document.module_id, document.digest) == (MODULE, "SHA384")


@pytest.mark.parametrize("name", ["user_data", "nonce", "public_key"])
def test_a_field_is_bounded(nsm: EmulatedNsm, name: str) -> None:
    assert ask(nsm, {"Attestation": {name: bytes(1025)}}) == {"Error": "InputTooLarge"}


def test_a_document_holds_the_locked_pcrs(nsm: EmulatedNsm, pki: NitroPki, clock: Clock) -> None:
    pcrs = attest(nsm, pki, clock).pcrs
    assert dict(pcrs) == dict.fromkeys(range(16), ZERO) | {0: b"\1" * 48, 4: b"\4" * 48}
    ask(nsm, {"ExtendPCR": {"index": 16, "data": b"x"}})
    ask(nsm, {"LockPCR": {"index": 16}})
    assert attest(nsm, pki, clock).pcrs[16] == hashlib.sha384(ZERO + b"x").digest()


def test_the_certificate_is_reused_and_reissued_before_it_expires(
    nsm: EmulatedNsm, pki: NitroPki, clock: Clock
) -> None:
    first = attest(nsm, pki, clock)
    clock.now += timedelta(hours=2, minutes=21)
    assert attest(nsm, pki, clock).certificate == first.certificate
    clock.now += timedelta(minutes=2)
    assert attest(nsm, pki, clock).certificate != first.certificate
    clock.now -= timedelta(hours=1)
    attest(nsm, pki, clock)
