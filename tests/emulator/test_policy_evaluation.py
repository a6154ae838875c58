from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.identity import Instance, Principal
from emulator.kms_fault import KmsFault
from emulator.policy_evaluation import Access, Decision, evaluate
from foobar_shared.key_policy import key_policy

INSTANCE = Instance()
ROLE = INSTANCE.role_session()
ROOT = INSTANCE.root()
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PCR0 = bytes(range(48))
OURS = key_policy(
    region=INSTANCE.region, account_id=INSTANCE.account_id, role=INSTANCE.role, pcr0=PCR0
)
ATTESTED = {"kms:recipientattestation:pcr0": PCR0.hex()}
IMAGE = "kms:RecipientAttestation:ImageSha384"


def decide(
    text: str, caller: Principal, action: str, context: dict[str, str] | None = None
) -> Decision:
    return evaluate(text, Access(caller, action, KEY, context or {}))


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


@pytest.mark.parametrize("action", ["kms:GetPublicKey", "kms:getpublickey"])
def test_our_policy_lets_the_role_read_the_public_key(action: str) -> None:
    assert decide(OURS, ROLE, action) is Decision.ALLOWED


def test_an_account_principal_leaves_the_choice_to_iam() -> None:
    text = document(statement(Principal={"AWS": ROOT.arn}, Action="kms:*"))
    administrator = Principal(
        INSTANCE.account_id, "arn:aws:iam::123456789012:user/a", iam_actions=("kms:Describe*",)
    )
    assert decide(text, administrator, "kms:DescribeKey") is Decision.ALLOWED
    assert decide(text, administrator, "kms:PutKeyPolicy") is Decision.NOT_ALLOWED


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": [ROLE.arn]}, {"AWS": "x"}])
def test_principals(principal: object) -> None:
    named = principal != {"AWS": "x"}
    decision = decide(document(statement(Principal=principal)), ROLE, "kms:DeriveSharedSecret")
    assert (decision is Decision.ALLOWED) is named


def test_the_other_account_is_nobody() -> None:
    stranger = Principal("999999999999", "arn:aws:iam::999999999999:root", iam_actions=("kms:*",))
    assert decide(OURS, stranger, "kms:DescribeKey") is Decision.NOT_ALLOWED


@pytest.mark.parametrize(
    ("resource", "allowed"),
    [
        ("*", True),
        (KEY, True),
        (KEY[:-1] + "?", True),
        ("arn:aws:kms:*:123456789012:key/*", True),
        (KEY.upper(), False),
        ("arn:aws:kms:us-east-1:123456789012:key/other", False),
    ],
)
def test_resources(resource: str, allowed: bool) -> None:
    decision = decide(document(statement(Resource=resource)), ROLE, "kms:DeriveSharedSecret")
    assert (decision is Decision.ALLOWED) is allowed


@pytest.mark.parametrize("denied", [{"AWS": INSTANCE.role_arn}, {"AWS": ROOT.arn}, "*"])
def test_an_explicit_deny_wins(denied: object) -> None:
    text = document(statement(), statement(Effect="Deny", Principal=denied, Action="kms:*"))
    assert decide(text, ROLE, "kms:DeriveSharedSecret") is Decision.DENIED


def test_a_deny_whose_condition_fails_does_not_apply() -> None:
    condition = {"StringEquals": {"kms:RecipientAttestation:PCR0": "00"}}
    text = document(statement(), statement(Effect="Deny", Condition=condition))
    assert decide(text, ROLE, "kms:DeriveSharedSecret", ATTESTED) is Decision.ALLOWED


@pytest.mark.parametrize(
    ("operator", "value", "allowed"),
    [
        ("StringEquals", PCR0.hex(), True),
        ("StringEquals", PCR0.hex().upper(), False),
        ("StringEqualsIgnoreCase", PCR0.hex().upper(), True),
        ("StringEqualsIgnoreCase", "*", False),
        ("StringLike", PCR0.hex()[:10] + "*", True),
        ("StringLike", PCR0.hex().upper(), False),
        ("StringEquals", ["00", PCR0.hex()], True),
        ("StringEquals", [], False),
        ("StringNotEquals", "00", False),
        ("StringEqualsIfExists", PCR0.hex(), False),
        ("ForAnyValue:StringEquals", PCR0.hex(), False),
        ("Bool", "true", False),
    ],
)
def test_condition_operators(operator: str, value: object, allowed: bool) -> None:
    text = document(statement(Condition={operator: {"kms:RecipientAttestation:pcr0": value}}))
    decision = decide(text, ROLE, "kms:DeriveSharedSecret", ATTESTED)
    assert (decision is Decision.ALLOWED) is allowed


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        (IMAGE, True),
        ("kms:RecipientAttestation:PCR0", True),
        ("kms:RecipientAttestation:PCR00", False),
        ("kms:ViaService", False),
        ("aws:SourceIp", False),
    ],
)
def test_condition_keys(key: str, allowed: bool) -> None:
    context = ATTESTED | {IMAGE.lower(): PCR0.hex(), "kms:viaservice": PCR0.hex()}
    text = document(statement(Condition={"StringEquals": {key: PCR0.hex()}}))
    decision = decide(text, ROLE, "kms:DeriveSharedSecret", context)
    assert (decision is Decision.ALLOWED) is allowed


@pytest.mark.parametrize("name", ["Principal", "Action", "Resource"])
def test_what_is_not_understood_only_takes_away(name: str) -> None:
    odd = statement()
    odd[f"Not{name}"] = odd.pop(name) if name != "Principal" else {"AWS": "x"}
    odd[f"Not{name}"] = {"AWS": "x"} if name == "Principal" else "other"
    odd.pop(name, None)
    assert decide(document(odd), ROLE, "kms:DeriveSharedSecret") is Decision.NOT_ALLOWED
    denied = document(statement(), odd | {"Effect": "Deny"})
    assert decide(denied, ROLE, "kms:DeriveSharedSecret") is Decision.DENIED
    unknown = {"StringNotEquals": {"kms:RecipientAttestation:PCR0": "00"}}
    denied = document(statement(), statement(Effect="Deny", Condition=unknown))
    assert decide(denied, ROLE, "kms:DeriveSharedSecret") is Decision.DENIED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Statement":[]}',
        json.dumps({"Version": "2020-01-01", "Statement": [statement()]}),
        '{"Statement":[1]}',
        json.dumps({"Statement": [statement()], "Extra": 1}),
        document(statement(Extra=1)),
        document(statement(Effect="allow")),
        document(statement(NotAction="kms:*")),
        document({"Effect": "Allow", "Action": "*", "Resource": "*"}),
        document(statement(Principal="everyone")),
        document(statement(Action=[1])),
        document(statement(Condition={"StringEquals": "x"})),
        "[" * 100,
    ],
)
def test_a_malformed_policy_is_refused(text: str) -> None:
    with pytest.raises(KmsFault) as refused:
        decide(text, ROLE, "kms:GetPublicKey")
    assert refused.value.code == "MalformedPolicyDocumentException"


@given(st.text(alphabet="ab*?.", max_size=8), st.text(alphabet="ab.", max_size=8))
def test_patterns_match_as_a_plain_search_does(pattern: str, value: str) -> None:
    def search(pattern: str, value: str) -> bool:
        if not pattern:
            return not value
        if pattern[0] == "*":
            return any(search(pattern[1:], value[start:]) for start in range(len(value) + 1))
        return bool(value) and pattern[0] in ("?", value[0]) and search(pattern[1:], value[1:])

    text = document(statement(Resource=pattern))
    allowed = evaluate(text, Access(ROLE, "kms:DeriveSharedSecret", value, {}))
    assert (allowed is Decision.ALLOWED) is search(pattern, value)


WORDS = ["Statement", "Effect", "Allow", "Principal", "Action", "Resource", "Condition", "AWS"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_no_text_makes_the_parser_fail_otherwise(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"Statement": value})):
        codes = set()
        try:
            decide(text, ROLE, "kms:GetPublicKey")
        except KmsFault as error:
            codes.add(error.code)
        assert codes <= {"MalformedPolicyDocumentException"}
