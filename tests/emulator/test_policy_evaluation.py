from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.identity import Instance, Principal
from emulator.kms_fault import KmsFault
from emulator.policy_evaluation import Access, Policy

INSTANCE = Instance()
ROLE = INSTANCE.role_session()
ROOT = INSTANCE.root()
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PCR0 = bytes(range(48)).hex()
ATTESTED = {"kms:recipientattestation:pcr0": PCR0, "kms:recipientattestation:imagesha384": PCR0}
ANY_PCR0 = {"StringEquals": {"kms:RecipientAttestation:PCR0": "00"}}


def allows(
    text: str, caller: Principal = ROLE, action: str = "kms:DeriveSharedSecret", key: str = KEY
) -> bool:
    return Policy.parse(text).allows(Access(caller, action, key, ATTESTED))


def statement(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "Effect": "Allow",
        "Principal": {"AWS": INSTANCE.role_arn},
        "Action": "kms:DeriveSharedSecret",
        "Resource": "*",
    }
    return base | changes


def document(*statements: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Principal": {"AWS": [ROLE.arn]}}, True),
        ({"Principal": {"AWS": "x"}}, False),
        ({"Action": "kms:derivesharedsecret"}, True),
        ({"Action": ["kms:Get*", "kms:Derive*"]}, True),
        ({"Action": "kms:GetPublicKey"}, False),
        ({"Resource": KEY}, True),
        ({"Resource": KEY[:-1] + "?"}, True),
        ({"Resource": KEY.upper()}, False),
        ({"Resource": KEY[:-1]}, False),
    ],
)
def test_a_statement_allows_what_it_names(changes: dict[str, object], allowed: bool) -> None:
    assert allows(document(statement(**changes))) is allowed


def test_an_account_principal_leaves_the_choice_to_iam() -> None:
    text = document(statement(Principal={"AWS": ROOT.arn}, Action="kms:*"))
    arn = "arn:aws:iam::123456789012:user/a"
    administrator = Principal(INSTANCE.account_id, arn, iam_actions=("kms:Describe*",))
    assert allows(text, administrator, "kms:DescribeKey")
    assert not allows(text, administrator, "kms:PutKeyPolicy")
    stranger = Principal("999999999999", "arn:aws:iam::999999999999:root", iam_actions=("kms:*",))
    assert not allows(text, stranger, "kms:DescribeKey")


@pytest.mark.parametrize("denied", [{"AWS": INSTANCE.role_arn}, {"AWS": ROOT.arn}, "*"])
def test_an_explicit_deny_wins_where_it_applies(denied: object) -> None:
    deny = statement(Effect="Deny", Principal=denied, Action="kms:*")
    assert not allows(document(statement(), deny))
    assert allows(document(statement(), deny | {"Condition": ANY_PCR0}))


@pytest.mark.parametrize(
    ("operator", "value", "allowed"),
    [
        ("StringEquals", PCR0, True),
        ("StringEquals", PCR0.upper(), False),
        ("StringEquals", ["00", PCR0], True),
        ("StringEquals", [], False),
        ("StringEqualsIgnoreCase", PCR0.upper(), True),
        ("StringEqualsIgnoreCase", "*", False),
        ("StringLike", PCR0[:10] + "*", True),
        ("StringLike", PCR0.upper(), False),
    ],
)
def test_condition_operators(operator: str, value: object, allowed: bool) -> None:
    for name in ("pcr0", "ImageSha384"):
        condition = {operator: {f"kms:RecipientAttestation:{name}": value}}
        assert allows(document(statement(Condition=condition))) is allowed


def test_every_condition_must_hold() -> None:
    keys = {"kms:RecipientAttestation:PCR0": PCR0}
    for other in ({"kms:RecipientAttestation:PCR3": PCR0}, ANY_PCR0["StringEquals"]):
        condition = {"StringEquals": keys, "StringLike": other}
        assert not allows(document(statement(Condition=condition)))


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
@pytest.mark.parametrize(
    "changes",
    [
        {"NotPrincipal": "*"},
        {"NotAction": "*"},
        {"NotResource": "*"},
        {"Condition": {"StringNotEquals": {"kms:RecipientAttestation:PCR0": "00"}}},
        {"Condition": {"StringEqualsIfExists": {"kms:RecipientAttestation:PCR0": PCR0}}},
        {"Condition": {"StringEquals": {"kms:RecipientAttestation:PCR": PCR0}}},
        {"Condition": {"StringEquals": {"aws:SourceIp": PCR0}}},
    ],
)
def test_what_is_not_known_is_refused(effect: str, changes: dict[str, object]) -> None:
    with pytest.raises(KmsFault, match="UnsupportedOperationException"):
        Policy.parse(document(statement(Effect=effect, **changes)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"Statement":[]}',
        json.dumps({"Version": "2020-01-01", "Statement": [statement()]}),
        '{"Statement":[1]}',
        json.dumps({"Statement": [statement()], "Extra": 1}),
        document(statement(Effect="allow")),
        document({"Effect": "Allow", "Action": "*", "Resource": "*"}),
        document(statement(Principal="everyone")),
        document(statement(Principal={"Service": "ec2.amazonaws.com"})),
        document(statement(Action=[1])),
        document(statement(Condition={"StringEquals": "x"})),
    ],
)
def test_a_malformed_policy_is_refused(text: str) -> None:
    with pytest.raises(KmsFault, match="MalformedPolicyDocumentException"):
        Policy.parse(text)


@given(st.text(alphabet="ab*?.", max_size=8), st.text(alphabet="ab.", max_size=8))
def test_patterns_match_as_a_plain_search_does(pattern: str, value: str) -> None:
    def search(pattern: str, value: str) -> bool:
        if not pattern:
            return not value
        if pattern[0] == "*":
            return any(search(pattern[1:], value[start:]) for start in range(len(value) + 1))
        return bool(value) and pattern[0] in ("?", value[0]) and search(pattern[1:], value[1:])

    assert allows(document(statement(Resource=pattern)), key=value) is search(pattern, value)
