"""What the corpus does not show of the rules: bounds, this project's own rules, and exceptions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import datetime, timedelta

import cbor2
import pytest

from emulator.documents import ES384_PROTECTED, encode_payload
from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    MalformedAttestation,
    Measurements,
    verify_attestation,
)
from foobar_instance.attestation import _rules as r
from tests.support.forge import PCRS, RULES, chain, document, fields, pki, root, without
from tests.support.issued import (
    COMMON_NAME,
    MODULE_ID,
    NOW,
    POSITIONS,
    common_name,
    named,
    one_with,
    usual,
)

MILLISECOND = timedelta(milliseconds=1)
Check = Callable[[], Attestation]


def check(raw: bytes, **expected: object) -> Attestation:
    return verify_attestation(raw, root=root(), **expected)  # type: ignore[arg-type]


def unused_bit(position: str) -> Check:
    """Declare a bit of a certificate's signature unused, which must be zero."""

    def run() -> Attestation:
        while True:  # until the last bit is zero, which the parser demands
            issued = one_with(position, unused_bits=1)
            ders = (*issued.chain.cabundle, issued.chain.certificate)
            if not ders[POSITIONS.index(position)][-1] & 1:
                return verify_attestation(document(issued.chain), root=issued.root)

    return run


def two_names() -> Attestation:
    issued = one_with("leaf", subject=named(*[(COMMON_NAME, f"{MODULE_ID}.aws")] * 2))
    return verify_attestation(document(issued.chain), root=issued.root)


def measured(pcrs: dict[int, bytes], raw: bytes) -> Attestation:
    return check(raw, measurements=Measurements(pcrs))


def aged(moment: datetime) -> Attestation:
    """Judged by the clock at `moment`, under certificates that are valid then."""
    given = usual()
    return verify_attestation(
        document(given.chain), root=given.root, at=moment, max_age=timedelta(minutes=5)
    )


@pytest.mark.parametrize(
    ("rule", "run"),
    [
        (r.CBOR, lambda: check(b"\x81" * 5 + b"\x00")),
        (r.PAYLOAD_CBOR, lambda: check(document(deep=[[[[1]]]]))),
        (r.MODULE_ID, lambda: check(document(module_id=MODULE_ID + "\u00e9"))),
        (r.CERTIFICATE, unused_bit("leaf")),
        (r.CABUNDLE, unused_bit("instance")),
        (r.CABUNDLE, lambda: check(document(cabundle=[chain().cabundle[0]] * 9))),
        (r.LEAF_SUBJECT, two_names),
        (r.SANDBOX_PCR17, lambda: measured(PCRS, document(pcrs=PCRS | {17: bytes(47) + b"\1"}))),
        (r.AGE, lambda: aged(NOW + timedelta(minutes=5) + MILLISECOND)),
        (r.AGE, lambda: aged(NOW - timedelta(minutes=1) - MILLISECOND)),
        (r.NONCE, lambda: check(document(nonce=b"n"), nonce=b"")),
        (r.NONCE, lambda: check(document(nonce=None), nonce=b"")),
    ],
)
def test_what_no_case_of_the_corpus_breaks(rule: r.Rule, run: Check) -> None:
    with pytest.raises(rule.error) as caught:
        run()
    assert caught.value.rule == rule.name


def test_errors_survive_pickling() -> None:
    for rule in RULES.values():
        error = rule.broken("it is otherwise")
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
        assert (type(copy), copy.rule, str(copy)) == (type(error), rule.name, str(error))


def test_names_in_hostile_certificates_do_not_reach_the_text() -> None:
    name = f"{MODULE_ID}.\x1b[31mtrusted\nverified"
    issued = one_with("leaf", subject=common_name(name), usage=b"")
    with pytest.raises(AttestationError) as caught:
        verify_attestation(document(issued.chain), root=issued.root)
    assert caught.value.rule == r.CHAIN_PATH.name
    assert str(caught.value).isprintable()
    assert "verified" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: document(public_key=b"", user_data=b"", nonce=b""),
        lambda: document(nonce=bytes(r.MAX_FIELD)),
        lambda: document(pcrs=PCRS | {17: b"\1" * 48}),
        lambda: document(pcrs={0: b"\1" * 48}),
        lambda: document(added_by_aws=cbor2.CBORTag(1, 1)),
        lambda: document(added_by_aws=[[[1]]]),
        lambda: document(pki().issue("i-0-box1", now=NOW), module_id="i-0-box1"),
        lambda: document(nitrotpm_pcrs={}),
    ],
    ids=["empty", "longest", "PCR17", "one PCR", "tag", "deep", "module", "both kinds of PCRs"],
)
def test_what_genuine_documents_may_do_is_allowed(make: Callable[[], bytes]) -> None:
    assert check(make()).timestamp == NOW


def test_a_field_of_the_longest_nsm_request() -> None:
    names = ("user_data", "nonce", "public_key")
    request = {"Attestation": dict.fromkeys(names) | {"nonce": bytes(r.MAX_FIELD)}}
    assert len(cbor2.dumps(request)) == 4096


def test_a_sandbox_is_pinned_with_its_pcr17() -> None:
    policy = {17: b"\1" * 48}
    assert measured(PCRS | policy, document(pcrs=PCRS | policy)).is_sandbox
    assert not measured(PCRS, document(pcrs=PCRS | {17: bytes(48)})).is_sandbox


def test_null_absent_and_empty_are_told_apart() -> None:
    assert check(document(nonce=None)).nonce is None
    assert check(without("nonce")).nonce is None
    assert check(document(nonce=b""), nonce=b"").nonce == b""


@pytest.mark.parametrize("moment", [NOW + timedelta(minutes=5), NOW - timedelta(minutes=1)])
def test_the_borders_of_the_allowed_age(moment: datetime) -> None:
    assert aged(moment).timestamp == NOW


def test_debug_mode_can_be_accepted() -> None:
    assert check(document(pcrs=PCRS | {0: bytes(48)}), allow_debug=True).is_debug
    assert not check(document()).is_debug


@pytest.mark.parametrize(
    ("protected", "size", "rule"),
    [(cbor2.dumps({1: -1}), 64, r.COSE_ALGORITHM), (ES384_PROTECTED, 96, r.CERTIFICATE)],
    ids=["as they are", "even with the right algorithm and length"],
)
def test_qemu_s_emulated_documents_are_refused(protected: bytes, size: int, rule: r.Rule) -> None:
    content = fields(pcrs=dict.fromkeys(range(16), bytes(48)), certificate=b"", cabundle=[b""])
    payload = encode_payload(content, indefinite=False)
    with pytest.raises(MalformedAttestation) as caught:
        check(cbor2.dumps([protected, {}, payload, bytes(size)]))
    assert caught.value.rule == rule.name
