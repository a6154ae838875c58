"""What is taken from an enclave, or from whoever answers in its place."""

import json
import socket

import pytest

from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import EnclaveRefusedError, EnclaveUnavailableError, InstanceError
from foobar_shared.addresses import UnixAddress
from foobar_shared.framing import MAX_COMPUTE_LINE, MAX_LINE, LineSocket
from foobar_shared.messages import (
    AttestationResponse,
    ErrorResponse,
    GetAttestationRequest,
    encode_request,
    encode_response,
)
from tests.foobar_instance.peers import SECONDS, answering, serving

REQUEST = GetAttestationRequest(bytes(32))


def ask(answer: bytes) -> bytes:
    """What the client makes of `answer`, which is sent as it is."""

    def serve(connection: socket.socket) -> None:
        LineSocket(connection).read_line(idle=SECONDS, within=SECONDS)
        connection.sendall(answer)

    with serving(serve) as address, EnclaveClient(address) as client:
        return client.ask(REQUEST)


def refused(answer: bytes, kind: type[InstanceError], words: str) -> str:
    with pytest.raises(kind, match=words) as caught:
        ask(answer)
    assert caught.value.exit_code == 1
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_attestation_of_an_answer() -> None:
    lines: list[bytes] = []

    def answer(line: bytes) -> bytes:
        lines.append(line)
        return encode_response(AttestationResponse("getAttestation", b"document"))

    with answering(answer) as address, EnclaveClient(address) as client:
        assert client.ask(REQUEST) == b"document"
        assert client.ask_line(b"{}", "getAttestation") == b"document"
    assert lines == [encode_request(REQUEST), b"{}"]


def test_nobody_there() -> None:
    with pytest.raises(EnclaveUnavailableError, match=r"unix:/nonexistent .*--enclave"):
        EnclaveClient(UnixAddress("/nonexistent"))


def test_the_connection_is_closed_in_the_end() -> None:
    closed: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        closed.append(connection.recv(1))

    with serving(serve) as address, EnclaveClient(address):
        assert closed == []
    assert closed == [b""]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer"),
        (b'{"getAttes', "lost .*in the middle of a line"),
    ],
)
def test_closed_before_the_end_of_an_answer(answer: bytes, words: str) -> None:
    refused(answer, EnclaveUnavailableError, words)


@pytest.mark.threat("13")
def test_a_line_that_is_too_long() -> None:
    refused(b"x" * (MAX_LINE + 1), EnclaveUnavailableError, f"longer than {MAX_LINE} bytes")


def test_no_answer_in_time() -> None:
    def serve(connection: socket.socket) -> None:
        lines = LineSocket(connection)
        while lines.read_line(idle=SECONDS, within=SECONDS) is not None:
            continue

    with (
        serving(serve) as address,
        EnclaveClient(address, answer_seconds=0.01) as client,
        pytest.raises(EnclaveUnavailableError, match=r"lost .*timed out"),
    ):
        client.ask(REQUEST)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe",
        b"hello",
        b"[]",
        b"{}",
        b"null",
        b"[" * 60000,
        b'{"getAttestation": 1}',
        b'{"getAttestation": {}}',
        b'{"getAttestation": {"attestation": "?"}}',
        b'{"getAttestation": {"attestation": ""}, "error": "x"}',
        b'{"error": 1}',
        b'{"\x1b[2J": {}}',
    ],
    ids=lambda answer: answer[:20].decode("ascii", "replace").replace("\x1b", "ESC"),
)
def test_an_answer_that_is_none(answer: bytes) -> None:
    refused(answer + b"\n", EnclaveRefusedError, "the enclave's answer is malformed")


def test_the_answer_to_another_request() -> None:
    answer = encode_response(AttestationResponse("createKey", b"document"))
    refused(answer + b"\n", EnclaveRefusedError, "answered createKey to getAttestation")


def test_the_enclaves_refusal_is_told() -> None:
    answer = encode_response(ErrorResponse("getAttestation.nonce: not 32 bytes"))
    text = refused(answer + b"\n", EnclaveRefusedError, "refused getAttestation")
    assert text.endswith(": getAttestation.nonce: not 32 bytes")


def test_a_hostile_refusal_is_cleaned_and_cut() -> None:
    hostile = "\x1b[2J\x9b1m\r\nerror: all is well\u202e\u2028" + "x" * 5000
    answer = json.dumps({"error": hostile}).encode()
    text = refused(answer + b"\n", EnclaveRefusedError, "refused getAttestation")
    assert len(text) < 600


def test_a_request_that_is_too_long_is_not_sent() -> None:
    with (
        answering(lambda _: b"{}") as address,
        EnclaveClient(address) as client,
    ):
        for name, longest in (("decrypt", MAX_LINE), ("compute", MAX_COMPUTE_LINE)):
            with pytest.raises(EnclaveRefusedError, match=f"longer than {longest} bytes"):
                client.ask_line(b"x" * longest, name)
