"""Requests and responses: the wire contract, byte for byte."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.claims import MAX_MESSAGES
from foobar_shared.encoding import to_base64
from foobar_shared.envelope import MAX_CIPHERTEXT
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_COMPUTE_LINE, MAX_LINE
from foobar_shared.messages import (
    MAX_ENVELOPED_DATA,
    AttestationResponse,
    ComputeMessage,
    ComputeRequest,
    CreateKeyRequest,
    Credentials,
    DecryptRequest,
    ErrorResponse,
    GetAttestationRequest,
    Request,
    Response,
    encode_request,
    encode_response,
    name_of,
    parse_request,
    parse_response,
)

printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
nonces = st.none() | st.binary(min_size=32, max_size=32)
requests = (
    st.builds(
        CreateKeyRequest,
        printable,
        printable,
        printable,
        st.builds(Credentials, printable, printable, printable),
        nonces,
    )
    | st.builds(GetAttestationRequest, nonces)
    | st.builds(DecryptRequest, st.binary(), st.binary(), st.binary(), nonces)
)
responses = (
    st.builds(ErrorResponse, st.text())
    | st.builds(AttestationResponse, st.just("createKey"), st.binary())
    | st.builds(AttestationResponse, st.just("decrypt"), st.binary())
)

CREATE_KEY: dict[str, Any] = {
    "region": "us-east-1",
    "accountId": "123456789012",
    "awsIamRole": "role",
    "credentials": {"AccessKeyId": "AKID", "SecretAccessKey": "SECRET", "Token": "TOKEN"},
}


def line(**message: object) -> bytes:
    return json.dumps(message).encode()


@given(requests)
def test_request_round_trip(request: Request) -> None:
    encoded = encode_request(request)
    assert b"\n" not in encoded
    assert parse_request(encoded) == request
    assert list(json.loads(encoded)) == [name_of(request)]


@given(responses)
def test_response_round_trip(response: Response) -> None:
    encoded = encode_response(response)
    assert b"\n" not in encoded
    assert parse_response(encoded) == response


@given(st.binary())
def test_parsers_raise_nothing_but_message_errors(data: bytes) -> None:
    for parse in (parse_request, parse_response):
        with pytest.raises(MessageError):
            parse(data)


def test_what_the_original_cli_sends_is_read() -> None:
    # Go marshals unset pointers as null, and []byte as padded base64.
    assert parse_request(
        b'{"createKey":null,"getAttestation":{},"decrypt":null}'
    ) == GetAttestationRequest(nonce=None)
    assert parse_request(line(createKey=CREATE_KEY)) == CreateKeyRequest(
        "us-east-1", "123456789012", "role", Credentials("AKID", "SECRET", "TOKEN"), None
    )
    assert parse_request(
        line(decrypt={"sharedSecret": "AA==", "nonce": "AQ==", "ciphertext": "Ag=="})
    ) == DecryptRequest(b"\0", b"\1", b"\2", None)


def test_requests_are_written_as_the_original_reads_them() -> None:
    assert encode_request(DecryptRequest(b"\0", b"\1", b"\2", bytes(32))) == (
        b'{"decrypt":{"sharedSecret":"AA==","nonce":"AQ==","ciphertext":"Ag==","challenge":"'
        + to_base64(bytes(32)).encode()
        + b'"}}'
    )
    assert encode_request(GetAttestationRequest()) == b'{"getAttestation":{}}'


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b"{}", "exactly one of"),
        (b'{"other":1}', "none is"),
        (line(getAttestation={}, createKey=CREATE_KEY), "not createKey and getAttestation"),
        (line(getAttestation=[]), "getAttestation: not a JSON object"),
        (line(getAttestation={"nonce": 1}), "nonce: not base64 text"),
        (line(getAttestation={"nonce": "AA=="}), "nonce: not 32 bytes"),
        (line(createKey={**CREATE_KEY, "region": 1}), "createKey.region: not text"),
        (line(createKey={**CREATE_KEY, "region": ""}), "createKey.region: not 1 to"),
        (line(createKey={**CREATE_KEY, "region": "é"}), "printable"),
        (line(createKey={**CREATE_KEY, "region": "a\nb"}), "printable"),
        (line(createKey={**CREATE_KEY, "awsIamRole": "x" * 8193}), "printable"),
        (line(createKey={**CREATE_KEY, "credentials": {}}), "credentials.AccessKeyId: missing"),
        (line(createKey={**CREATE_KEY, "credentials": "x"}), "credentials: not a JSON object"),
        (line(decrypt={"sharedSecret": "AA==", "nonce": "AQ=="}), "ciphertext: missing"),
        (line(decrypt={"sharedSecret": "%"}), "decrypt.sharedSecret: not valid base64"),
    ],
)
def test_bad_requests_say_what_is_wrong(request_line: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        parse_request(request_line)


@pytest.mark.threat("13")
@pytest.mark.parametrize("value", ["{}", "[0]", '{"a":1}', "0.5", '""'])
def test_weakness_13_a_line_of_many_small_values_takes_no_memory(value: str) -> None:
    values = ",".join([value] * (MAX_COMPUTE_LINE // (len(value) + 1) - 10))
    request_line = b'{"getAttestation":{},"x":[%s]}' % values.encode()
    tracemalloc.start()
    try:
        with pytest.raises(MessageError, match="commas"):
            parse_request(request_line)
        assert tracemalloc.get_traced_memory()[1] < len(request_line)
    finally:
        tracemalloc.stop()


def test_the_request_with_the_most_messages_is_read() -> None:
    message = ComputeMessage(b"s", bytes(65), b"c")
    request = ComputeRequest("arn", b"key", (message,) * MAX_MESSAGES, bytes(32))
    assert parse_request(encode_request(request)) == request


@pytest.mark.parametrize(
    "response_line",
    [
        b"{}",
        line(error=1),
        line(error="x", decrypt={"attestation": "AA=="}),
        line(decrypt={}),
        line(decrypt={"attestation": 1}),
        line(decrypt="AA=="),
        line(createKey={"attestation": "A"}),
    ],
)
def test_bad_responses(response_line: bytes) -> None:
    with pytest.raises(MessageError):
        parse_response(response_line)


def test_unknown_fields_and_empty_nonces_are_ignored() -> None:
    assert parse_request(
        line(getAttestation={"nonce": "", "x": [1]}, y={"z": 1})
    ) == GetAttestationRequest(nonce=None)


def test_largest_decrypt_request_fits_a_line_and_no_larger_does() -> None:
    def length(ciphertext: int) -> int:
        return 1 + len(
            encode_request(
                DecryptRequest(bytes(MAX_ENVELOPED_DATA), bytes(12), bytes(ciphertext), bytes(32))
            )
        )

    assert length(MAX_CIPHERTEXT) <= MAX_LINE < length(MAX_CIPHERTEXT + 1)


def test_secrets_are_not_in_representations() -> None:
    request = parse_request(line(createKey=CREATE_KEY))
    for secret in ("AKID", "SECRET", "TOKEN"):
        assert secret not in repr(request)
    assert "canary" not in repr(DecryptRequest(b"canary", b"n", b"canary", None))


def test_errors_do_not_quote_the_content() -> None:
    credentials = {**CREATE_KEY["credentials"], "Token": "canary\n"}
    with pytest.raises(MessageError) as refused:
        parse_request(line(createKey={**CREATE_KEY, "credentials": credentials}))
    assert "canary" not in str(refused.value)
