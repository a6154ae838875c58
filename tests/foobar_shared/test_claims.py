"""user_data: what the enclave attests, separated by purpose."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.claims import (
    MAX_RESULT,
    ComputeClaims,
    KeyClaims,
    ResultClaims,
    parse_compute_claims,
    parse_key_claims,
    parse_result_claims,
)
from foobar_shared.computation import NAME, Result, compute
from foobar_shared.encoding import to_json
from foobar_shared.errors import MessageError
from tests.support.documents import RESULT

KEY = KeyClaims("id", "arn:aws:kms:us-east-1:1:key/id", b"der", "us-east-1", bytes(32))
DECRYPTED = ResultClaims(bytes(32), RESULT)
COMPUTED = ComputeClaims(NAME, KEY.key_arn, bytes(32), 512, RESULT)


def changed(claims: KeyClaims | ResultClaims | ComputeClaims, **fields: object) -> bytes:
    values = json.loads(claims.encode()) | fields
    return json.dumps({k: v for k, v in values.items() if v is not None}).encode()


def test_the_originals_fields_come_first_under_their_names() -> None:
    assert list(json.loads(KEY.encode())) == [
        *("keyId", "pubKey", "Region"),
        *("type", "keyArn", "policySha256"),
    ]
    assert DECRYPTED.encode().startswith(b'{"request":"AAAA')
    fields = to_json(RESULT.fields()).removeprefix(b"{").removesuffix(b"}")
    assert DECRYPTED.encode().endswith(b'",' + fields + b',"type":"foobar/decrypt/1"}')


@given(st.binary(min_size=32, max_size=32), st.binary())
def test_claims_come_back_as_they_were(sha256: bytes, plaintext: bytes) -> None:
    key = replace(KEY, policy_sha256=sha256)
    assert parse_key_claims(key.encode()) == key
    result = ResultClaims(sha256, compute([plaintext]))
    assert parse_result_claims(result.encode()) == result
    computed = replace(COMPUTED, messages_sha256=sha256, result=result.result)
    assert parse_compute_claims(computed.encode()) == computed


@given(st.binary())
def test_parsers_raise_nothing_but_message_errors(data: bytes) -> None:
    for parse in (parse_key_claims, parse_result_claims):
        with pytest.raises(MessageError):
            parse(data)


@pytest.mark.parametrize("name", ["region", "Region", "REGION"])
def test_region_is_read_without_regard_to_case(name: str) -> None:
    assert (
        parse_key_claims(changed(KEY, **({"Region": None} | {name: "eu-west-1"}))).region
        == "eu-west-1"
    )


def test_two_spellings_of_region_are_refused() -> None:
    with pytest.raises(MessageError, match="given twice"):
        parse_key_claims(changed(KEY, region="eu-west-1"))


@pytest.mark.threat("9")
def test_one_purpose_does_not_pass_for_another() -> None:
    with pytest.raises(MessageError, match="foobar/create-key/1"):
        parse_key_claims(DECRYPTED.encode())
    with pytest.raises(MessageError, match="foobar/decrypt/1"):
        parse_result_claims(KEY.encode())
    with pytest.raises(MessageError, match="foobar/decrypt/1"):
        parse_result_claims(changed(DECRYPTED, type="foobar/decrypt/2"))


def test_no_user_data() -> None:
    for user_data in (None, b""):
        with pytest.raises(MessageError, match="no user_data"):
            parse_key_claims(user_data)


@pytest.mark.parametrize(
    "fields",
    [
        {"keyId": None},
        {"keyArn": None},
        {"keyArn": "a\x1b[31m"},
        {"pubKey": "?"},
        {"pubKey": None},
        {"Region": None},
        {"Region": 1},
        {"policySha256": None},
        {"policySha256": "AAAA"},
        {"type": None},
    ],
)
def test_bad_key_claims(fields: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse_key_claims(changed(KEY, **fields))


@pytest.mark.parametrize("fields", [{"request": None}, {"request": "AAAA"}])
def test_bad_result_claims(fields: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse_result_claims(changed(DECRYPTED, **fields))


def test_the_largest_compute_claims_fit_user_data() -> None:
    longest = replace(COMPUTED, computation="n" * 64, key_arn="k" * 256)
    room = MAX_RESULT - len(to_json(RESULT.fields()))
    assert len(longest.encode()) + room <= 1024


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "foobar/decrypt/1"}, "type: not foobar/compute/1"),
        ({"computation": None}, "computation: missing"),
        ({"keyArn": ""}, "keyArn: not 1 to 256"),
        ({"messagesSha256": "AAAA"}, "messagesSha256: not 32 bytes"),
        ({"messages": 0}, "messages: not an integer from 1 to 512"),
        ({"messages": 513}, "messages: not an integer from 1 to 512"),
        ({"result": None}, "result: not a JSON object"),
    ],
)
def test_malformed_compute_claims(fields: dict[str, object], text: str) -> None:
    with pytest.raises(MessageError, match=text):
        parse_compute_claims(changed(COMPUTED, **fields))


def test_a_result_is_refused_in_the_words_of_its_computation() -> None:
    fields = RESULT.fields() | {"more": 1}
    with pytest.raises(MessageError) as own:
        Result.from_fields(fields)
    with pytest.raises(MessageError) as decrypted:
        parse_result_claims(changed(DECRYPTED, more=1))
    with pytest.raises(MessageError) as computed:
        parse_compute_claims(changed(COMPUTED, result=fields))
    assert str(decrypted.value) == str(computed.value) == str(own.value)


def test_a_name_that_is_too_long_is_a_defect() -> None:
    with pytest.raises(ValueError, match="name"):
        replace(COMPUTED, computation="n" * 65).encode()
