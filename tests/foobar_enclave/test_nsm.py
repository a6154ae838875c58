from __future__ import annotations

import contextlib
import ctypes
import errno
import json
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_enclave import nsm as nsm_module
from foobar_enclave.errors import NsmError
from foobar_enclave.nsm import NsmDescription, NsmDevice, Pcr
from tests.support.vectors import vector_path

DESCRIPTION = {
    "version_major": 1,
    "version_minor": 2,
    "version_patch": 3,
    "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
    "max_pcrs": 32,
    "locked_pcrs": [1, 0],
    "digest": "SHA384",
}


@dataclass
class Canned:
    """A transport with one answer to everything."""

    answer: bytes | OSError
    requests: list[bytes] = field(default_factory=list)

    def exchange(self, request: bytes) -> bytes:
        self.requests.append(request)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


def device(answer: bytes | OSError | object) -> NsmDevice:
    raw = answer if isinstance(answer, bytes | OSError) else cbor2.dumps(answer)
    return NsmDevice(transport=Canned(raw))


def golden(kind: str) -> dict[str, bytes]:
    entries = json.loads(vector_path(f"nsm/nsm_{kind}.json").read_text())[kind]
    return {entry["name"]: bytes.fromhex(entry["cbor"]) for entry in entries}


def sent(call: str, **arguments: object) -> bytes:
    """The bytes of a request; the answer, to which nothing corresponds, does not matter."""
    transport = Canned(b"\xf6")
    with pytest.raises(NsmError):
        getattr(NsmDevice(transport=transport), call)(**arguments)
    return transport.requests[0]


def test_requests_are_byte_for_byte_those_of_aws() -> None:
    requests = golden("requests")
    eighty = b"\x80" * 1024
    assert sent("describe") == requests["DescribeNSM"]
    assert sent("random") == requests["GetRandom"]
    for index in (0, 31, 65535):
        assert sent("describe_pcr", index=index) == requests[f"DescribePCR index={index}"]
    for name, fields in {
        "all None": {},
        "user_data=aa nonce=bbbb public_key=cccccc": {
            "public_key": b"\xcc\xcc\xcc",
            "nonce": b"\xbb\xbb",
            "user_data": b"\xaa",
        },
        "all empty": {"user_data": b"", "nonce": b"", "public_key": b""},
        "all 1024*80": {"user_data": eighty, "nonce": eighty, "public_key": eighty},
    }.items():
        assert sent("attest", **fields) == requests[f"Attestation {name}"]


def test_responses_of_aws_are_read() -> None:
    responses = golden("responses")
    assert device(responses["DescribePCR lock=true data=11*48"]).describe_pcr(3) == Pcr(
        lock=True, data=b"\x11" * 48
    )
    assert device(responses["DescribePCR lock=false data=00*48"]).describe_pcr(3) == Pcr(
        lock=False, data=bytes(48)
    )
    described = device(responses["DescribeNSM 1.0.0 max_pcrs=32 locked=0..15 SHA384"]).describe()
    assert described == NsmDescription(
        1, 0, 0, "i-0123456789abcdef0-enc0123456789abcdef", 32, tuple(range(16)), "SHA384"
    )
    assert device(responses["Attestation document=d2845000"]).attest() == b"\xd2\x84\x50\x00"
    assert device(responses["GetRandom random=0..255"]).random() == bytes(range(256))
    for code in ("InvalidArgument", "InvalidIndex", "InputTooLarge"):
        with pytest.raises(NsmError, match=f"failed at DescribeNSM: {code}") as raised:
            device(responses[f"Error {code}"]).describe()
        assert raised.value.code == code


def test_keys_may_come_in_any_order_with_unknown_ones_between() -> None:
    fields = dict(reversed((DESCRIPTION | {"later": {"a": [1, {"b": 2.5}]}}).items()))
    assert device({"DescribeNSM": fields}).describe().locked_pcrs == (0, 1)


def test_maps_and_arrays_may_be_of_indefinite_length() -> None:
    indefinite = b"\xbf\x6bDescribePCR\xbf\x64data\x5f\x41\x01\x41\x02\xff\x64lock\xf5\xff\xff"
    assert device(indefinite).describe_pcr(0) == Pcr(lock=True, data=b"\1\2")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "not valid CBOR"),
        (b"\xa1", "not valid CBOR"),
        (cbor2.dumps({"GetRandom": {"random": b"r"}})[:-1], "not valid CBOR"),
        (cbor2.dumps({"GetRandom": {"random": b"r"}}) + b"\x00", "bytes follow its answer"),
        (b"\xa2" + b"\x69GetRandom\xa0" * 2, "not valid CBOR"),  # a key twice
        (b"\xa1\x69GetRandom\xa2\x66random\x41a\x66random\x41b", "not valid CBOR"),
        (b"\x81" * 9 + b"\x00", "not valid CBOR"),  # too deep
        (b"\xc0\x61x", "not valid CBOR"),  # a date that is none
        (b"\x00" * (nsm_module.RESPONSE_MAX + 1), "longer than 12288 bytes"),
    ],
)
def test_what_is_not_one_cbor_item_is_refused(answer: bytes, text: str) -> None:
    with pytest.raises(NsmError, match=text):
        device(answer).random()


@pytest.mark.parametrize(
    "answer",
    [
        "GetRandom",
        None,
        [],
        {},
        {"GetRandom": None},
        {"GetRandom": {}},
        {"GetRandom": {"random": b""}},
        {"GetRandom": {"random": "text"}},
        {"GetRandom": {"random": [1]}},
        {"DescribePCR": {"random": b"r"}},
        {"GetRandom": {"random": b"r"}, "More": {}},
        {"Error": 3},
        {"Error": None},
    ],
)
def test_an_answer_that_does_not_correspond_is_refused(answer: object) -> None:
    with pytest.raises(NsmError, match="its answer"):
        device(answer).random()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version_major", "1"),
        ("version_patch", True),
        ("module_id", ""),
        ("module_id", b"i"),
        ("max_pcrs", None),
        ("locked_pcrs", 3),
        ("locked_pcrs", ["0"]),
        ("digest", 384),
    ],
)
def test_a_description_has_its_types(name: str, value: object) -> None:
    with pytest.raises(NsmError, match=f"no valid {name}"):
        device({"DescribeNSM": DESCRIPTION | {name: value}}).describe()


@pytest.mark.parametrize("change", [{"lock": 1}, {"lock": None}, {"data": "x"}, {"data": b""}])
def test_a_pcr_has_its_types(change: dict[str, object]) -> None:
    with pytest.raises(NsmError, match="no valid"):
        device({"DescribePCR": {"lock": True, "data": b"d"} | change}).describe_pcr(0)


def test_a_request_of_4096_bytes_is_sent_and_a_longer_one_refused() -> None:
    overhead = len(sent("attest", user_data=bytes(256))) - 256
    assert len(sent("attest", user_data=bytes(4096 - overhead))) == 4096
    transport = Canned(b"")
    with pytest.raises(NsmError, match="longer than 4096 bytes"):
        NsmDevice(transport=transport).attest(user_data=bytes(4097 - overhead))
    assert transport.requests == []


@pytest.mark.parametrize("index", [-1, 65536])
def test_an_index_is_an_unsigned_16_bit_number(index: int) -> None:
    with pytest.raises(NsmError, match="the index"):
        device({}).describe_pcr(index)


@pytest.mark.parametrize(
    ("error", "text"), [(OSError(errno.ETIMEDOUT, "x"), "ETIMEDOUT"), (OSError(), "unknown error")]
)
def test_errors_of_the_driver_are_told(error: OSError, text: str) -> None:
    with pytest.raises(NsmError, match=f"its driver says {text}"):
        device(error).random()


def test_a_machine_without_the_device_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NsmError, match=r"nsm: No such file.*runs in an enclave"):
        NsmDevice(str(tmp_path / "nsm"))


class Driver:
    """Plays drivers/misc/nsm.c for `fcntl.ioctl`."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.requests: list[bytes] = []
        self.written: int | None = None

    def ioctl(self, _descriptor: int, number: int, message: nsm_module._Raw) -> int:
        assert number == 0xC0200A00
        assert ctypes.sizeof(message) == 32
        assert message.response.len == 12288
        self.requests.append(ctypes.string_at(message.request.addr, message.request.len))
        ctypes.memmove(message.response.addr, self.response, len(self.response))
        message.response.len = len(self.response) if self.written is None else self.written
        return 0


@pytest.fixture
def node(tmp_path: Path) -> str:
    path = tmp_path / "nsm"
    path.touch()
    return str(path)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver(cbor2.dumps({"GetRandom": {"random": b"abc"}}))
    monkeypatch.setattr("foobar_enclave.nsm.fcntl.ioctl", driver.ioctl)
    return driver


def test_the_ioctl_carries_request_and_response(driver: Driver, node: str) -> None:
    assert NsmDevice(node).random() == b"abc"
    assert driver.requests == [b"\x69GetRandom"]


def test_a_length_beyond_the_buffer_is_not_believed(driver: Driver, node: str) -> None:
    driver.written = 12289
    with pytest.raises(NsmError):
        NsmDevice(node).random()


def test_a_device_that_is_no_nsm_is_an_error(node: str) -> None:
    with pytest.raises(NsmError, match="ENOTTY"):
        NsmDevice(node).describe()


CALLS = st.sampled_from(
    [NsmDevice.describe, NsmDevice.attest, NsmDevice.random, lambda nsm: nsm.describe_pcr(0)]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["DescribeNSM", "DescribePCR", "Attestation", "GetRandom", "Error"])


@given(call=CALLS, answer=st.binary(max_size=64) | st.dictionaries(NAMES, VALUES, max_size=2))
def test_any_answer_is_read_or_an_nsm_error(call: object, answer: object) -> None:
    assert callable(call)
    with contextlib.suppress(NsmError):
        assert call(device(answer)) is not None


@given(st.binary(min_size=1, max_size=1024), st.none() | st.binary(max_size=1024), st.binary())
def test_what_is_attested_is_what_is_sent(data: bytes, nonce: bytes | None, key: bytes) -> None:
    transport = Canned(cbor2.dumps({"Attestation": {"document": data}}))
    document = NsmDevice(transport=transport).attest(user_data=data, nonce=nonce, public_key=key)
    assert document == data
    fields = cbor2.loads(transport.requests[0])["Attestation"]
    assert fields == {"user_data": data, "nonce": nonce, "public_key": key}
