"""Every rule has documents that break it and nothing else, and every exception verifies."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from emulator.documents import ES384_PROTECTED, encode_payload, sign_document
from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    MalformedAttestation,
    Measurements,
    verify_attestation,
)
from foobar_instance.attestation import _rules as r
from tests.support.forge import (
    ORDER,
    PCRS,
    RULES,
    chain,
    document,
    fields,
    pki,
    root,
    without,
)
from tests.support.issued import (
    CAS,
    COMMON_NAME,
    CONSTRAINTS,
    ECDSA_SHA256,
    LEAF,
    MODULE_ID,
    NO_CA,
    NOW,
    POSITIONS,
    SIGNS_CERTIFICATES,
    SIGNS_DOCUMENTS,
    SIGNS_LISTS,
    USAGE,
    Issued,
    ca,
    common_name,
    constraints,
    extension,
    issue,
    named,
    one_with,
    usual,
    utc_time,
)

SECOND = timedelta(seconds=1)
NOT_OPTIONAL: tuple[object, ...] = (bytes(4051), "text", 0, [], False)
P384_OID, UNKNOWN_OID = bytes.fromhex("06052b81040022"), bytes.fromhex("06052b8104007f")
UNKNOWN_EXTENSION = extension(bytes.fromhex("0603551d1d"), "3000")
NO_NAME_PERMITTED = extension(bytes.fromhex("0603551d1e"), "3006a0043002a400")
Check = Callable[[], Attestation]


def check(raw: bytes, under: x509.Certificate | None = None) -> Attestation:
    return verify_attestation(raw, root=under or root())


def message(**parts: object) -> bytes:
    """Return a document with some parts of its COSE array replaced."""
    given = cbor2.loads(document())
    names = ("protected", "unprotected", "payload", "signature")
    return cbor2.dumps([parts.get(name, value) for name, value in zip(names, given, strict=True)])


def signed(payload: bytes, **shape: object) -> bytes:
    return sign_document(payload, chain().key, **shape)  # type: ignore[arg-type]


def padded(size: int) -> bytes:
    """Return a good payload of exactly `size` bytes, by a key that is not known."""
    bare = encode_payload(fields(padding=b"\0" * 1000))
    payload = encode_payload(fields(padding=b"\0" * (1000 + size - len(bare))))
    assert len(payload) == size
    return payload


def under(issued: Issued) -> Attestation:
    return check(document(issued.chain), issued.root)


def with_part(position: str, **parts: object) -> Check:
    return lambda: under(one_with(position, **parts))


def bundle(*order: int, good: bool = False) -> Attestation:
    """Check the good document with its cabundle in another order, or with some left out."""
    assert good is (order == (0, 1, 2, 3))
    return check(document(replace(chain(), cabundle=tuple(chain().cabundle[i] for i in order))))


def with_pcrs(value: object) -> bytes:
    return document(pcrs=value)


def duplicate_key() -> bytes:
    return signed(
        encode_payload(fields())[:-1] + cbor2.dumps("nonce") + cbor2.dumps(b"x") + b"\xff"
    )


def zero_pcr0() -> Attestation:
    return check(with_pcrs(PCRS | {0: bytes(48)}))


def high_s(raw: bytes, *, high: bool) -> bytes:
    """Return the same document with the larger or the smaller of the two valid values of s."""
    *front, signature = cbor2.loads(raw)
    s = int.from_bytes(signature[48:], "big")
    s = max(s, ORDER - s) if high else min(s, ORDER - s)
    return cbor2.dumps([*front, signature[:48] + s.to_bytes(48, "big")])


def half_swapped() -> bytes:
    *front, signature = cbor2.loads(document())
    return cbor2.dumps([*front, signature[48:] + signature[:48]])


def other_key_signed() -> bytes:
    return sign_document(fields(), ec.generate_private_key(ec.SECP384R1()))


def unused_bit(position: str) -> Check:
    """Declare a bit of a certificate's signature unused, which must be zero."""

    def run() -> Attestation:
        while True:  # until the last bit is zero, which the parser demands
            issued = one_with(position, unused_bits=1)
            ders = dict(
                zip(POSITIONS, (*issued.chain.cabundle, issued.chain.certificate), strict=True)
            )
            if not ders[position][-1] & 1:
                return under(issued)

    return run


def extra_certificate() -> Attestation:
    """After the issuer comes a certificate that is in no path."""
    stranger = usual().chain.cabundle[3]
    return check(document(replace(chain(), cabundle=(*chain().cabundle, stranger))))


def detour() -> Attestation:
    """A CA comes again under the same name and key: there is a shorter path than the bundle's."""
    again = replace(ca("again"), key=ec.generate_private_key(ec.SECP384R1()))
    return under(issue(CAS[0], again, ca("between"), again, LEAF))


def namesake() -> Attestation:
    """All names lead to the trusted root, but another key of the same name has signed."""
    trusted, other = usual(), usual()
    return check(
        document(
            replace(other.chain, cabundle=(trusted.chain.cabundle[0], *other.chain.cabundle[1:]))
        ),
        trusted.root,
    )


def tpm_fields() -> dict[str, object]:
    """As EC2's NitroTPM documents are: 24 PCRs under another name."""
    pcrs = dict.fromkeys(range(24), b"\1" * 48)
    kept = {name: value for name, value in fields().items() if name != "pcrs"}
    return kept | {"nitrotpm_pcrs": pcrs}


def replaced(name: str, value: object) -> Attestation:
    return check(document(**{name: value}))


def left_out(name: str) -> Attestation:
    return check(without(name))


def measured(pcrs: Mapping[int, bytes], raw: bytes | None = None) -> Attestation:
    return verify_attestation(raw or document(), root=root(), measurements=Measurements(pcrs))


def aged(moment: datetime) -> Attestation:
    """Judged by the clock at `moment`, under certificates that are valid then."""
    given = usual()
    return verify_attestation(
        document(given.chain), root=given.root, at=moment, max_age=timedelta(minutes=5)
    )


BREAKERS: Mapping[str, list[Check]] = {
    r.SIZE.name: [
        lambda: check(b""),
        lambda: check(document() + bytes(r.MAX_DOCUMENT)),
    ],
    r.CBOR.name: [
        lambda: check(document() + b"\0"),
        lambda: check(document()[:-1]),
        lambda: check(b"\x81" * 5 + b"\x00"),
        lambda: check(message(unprotected={1: {2: {3: [4]}}})),
        lambda: check(b"\x9b" + b"\xff" * 8),
    ],
    r.COSE_TAG.name: [
        lambda: check(signed(encode_payload(fields()), tag=98)),
        lambda: check(signed(encode_payload(fields()), tag=17)),
        lambda: check(b"\xd9\xd9\xf7" + document()),
        lambda: check(b"\xd8\x1c" + document()),
    ],
    r.COSE_ARRAY.name: [
        lambda: check(cbor2.dumps(cbor2.loads(document())[:3])),
        lambda: check(cbor2.dumps([*cbor2.loads(document()), b""])),
        lambda: check(cbor2.dumps({0: 1, 1: 2, 2: 3, 3: 4})),
        lambda: check(b"\xd2\xd2" + document()),
        lambda: check(cbor2.dumps("text")),
    ],
    r.COSE_ALGORITHM.name: [
        lambda: check(signed(encode_payload(fields()), protected=cbor2.dumps({1: -7}))),
        lambda: check(signed(encode_payload(fields()), protected=b"")),
        lambda: check(signed(encode_payload(fields()), protected=cbor2.dumps({1: -35, 4: b"k"}))),
        lambda: check(signed(encode_payload(fields()), protected=bytes.fromhex("a1011822"))),
        lambda: check(message(protected={1: -35})),
        lambda: check(message(protected="text")),
    ],
    r.COSE_UNPROTECTED.name: [
        lambda: check(message(unprotected={1: -35})),
        lambda: check(message(unprotected={4: b"kid"})),
        lambda: check(message(unprotected=None)),
        lambda: check(message(unprotected=[])),
        lambda: check(message(unprotected=b"")),
    ],
    r.COSE_PAYLOAD.name: [
        lambda: check(message(payload=None)),
        lambda: check(message(payload=b"")),
        lambda: check(message(payload=fields())),
        lambda: check(message(payload="text")),
        lambda: check(signed(padded(r.MAX_PAYLOAD + 1))),
    ],
    r.COSE_SIGNATURE.name: [
        lambda: check(message(signature=b"")),
        lambda: check(message(signature=bytes(64))),
        lambda: check(message(signature=bytes(97))),
        lambda: check(message(signature=None)),
        lambda: check(message(signature="x" * 96)),
    ],
    r.PAYLOAD_CBOR.name: [
        lambda: check(signed(encode_payload(fields()) + b"\0")),
        lambda: check(signed(encode_payload(fields())[:-1])),
        lambda: check(signed(cbor2.dumps([fields()]))),
        lambda: check(signed(encode_payload(fields() | {"deep": [[[[1]]]]}))),
        lambda: check(signed(encode_payload({**fields(), 1: 2}))),  # type: ignore[dict-item]
        lambda: check(signed(b"\xd8\x1c" + encode_payload(fields()))),
        lambda: check(duplicate_key()),
    ],
    r.NITRO_TPM.name: [
        lambda: check(signed(encode_payload(tpm_fields()))),
    ],
    r.MANDATORY_FIELDS.name: [
        *(
            partial(left_out, name)
            for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
        ),
        *(
            partial(replaced, name, None)
            for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
        ),
        lambda: check(document(pcrs=None, nitrotpm_pcrs=PCRS)),
    ],
    r.MODULE_ID.name: [
        lambda: check(document(module_id="")),
        lambda: check(document(module_id=MODULE_ID.encode())),
        lambda: check(document(module_id="i" * 257)),
        lambda: check(document(module_id=MODULE_ID + "\n")),
        lambda: check(document(module_id=MODULE_ID + "\u00e9")),
    ],
    r.DIGEST.name: [
        lambda: check(document(digest="SHA256")),
        lambda: check(document(digest="sha384")),
        lambda: check(document(digest="")),
        lambda: check(document(digest=b"SHA384")),
        lambda: check(document(digest=["SHA384"])),
    ],
    r.TIMESTAMP.name: [
        lambda: check(document(timestamp=0)),
        lambda: check(document(timestamp=-1)),
        lambda: check(document(timestamp=r.MAX_TIMESTAMP + 1)),
        lambda: check(document(timestamp=2**64)),
        lambda: check(document(timestamp=float(int(NOW.timestamp() * 1000)))),
        lambda: check(document(timestamp="2026-03-01")),
        lambda: check(document(timestamp=True)),
    ],
    r.PCRS.name: [
        lambda: check(with_pcrs({})),
        lambda: check(with_pcrs([bytes(48)])),
        lambda: check(with_pcrs(dict.fromkeys(range(33), b"\1" * 48))),
        lambda: check(with_pcrs(PCRS | {32: bytes(48)})),
        lambda: check(with_pcrs(PCRS | {-1: bytes(48)})),
        lambda: check(with_pcrs({"0": bytes(48)})),
        lambda: check(with_pcrs({False: b"\1" * 48})),
        lambda: check(with_pcrs({0.5: b"\1" * 48})),
        lambda: check(with_pcrs({0: b"\1" * 32})),
        lambda: check(with_pcrs({0: b"\1" * 64})),
        lambda: check(with_pcrs({0: "1" * 48})),
        lambda: check(with_pcrs({0: None})),
    ],
    r.CERTIFICATE.name: [
        lambda: check(document(certificate=b"")),
        lambda: check(document(certificate="text")),
        lambda: check(document(certificate=chain().certificate + bytes(1024))),
        lambda: check(document(certificate=b"\x03\x04")),
        lambda: check(document(certificate=chain().certificate + b"\0")),
        unused_bit("leaf"),
        with_part("leaf", version=bytes.fromhex("a003020101")),
    ],
    r.CABUNDLE.name: [
        lambda: check(document(cabundle=[])),
        lambda: check(document(cabundle=chain().cabundle[0])),
        lambda: check(document(cabundle={0: chain().cabundle[0]})),
        lambda: check(document(cabundle=[*chain().cabundle, b""])),
        lambda: check(document(cabundle=[*chain().cabundle, "text"])),
        lambda: check(document(cabundle=[*chain().cabundle, bytes(1025)])),
        lambda: check(document(cabundle=[*chain().cabundle, b"\x30\x00"])),
        lambda: check(document(cabundle=[chain().cabundle[0]] * 9)),
        unused_bit("instance"),
    ],
    r.OPTIONAL_FIELDS.name: [
        *(
            partial(replaced, name, value)
            for name in ("public_key", "user_data", "nonce")
            for value in NOT_OPTIONAL
        ),
    ],
    r.CHAIN_ORDER.name: [
        lambda: bundle(1, 2, 3),
        lambda: bundle(1, 0, 2, 3),
        lambda: bundle(0, 2, 1, 3),
        lambda: bundle(3, 2, 1, 0),
        lambda: bundle(0, 1, 1, 2, 3),
        lambda: bundle(0, 1, 2, 3, 0),
        lambda: check(document(), usual().root),
        extra_certificate,
        detour,
    ],
    r.CHAIN_VALIDITY.name: [
        *(with_part(position, not_after=utc_time(NOW - SECOND)) for position in POSITIONS),
        *(with_part(position, not_before=utc_time(NOW + SECOND)) for position in POSITIONS),
        with_part("zonal", not_before=utc_time(NOW + SECOND), not_after=utc_time(NOW - SECOND)),
    ],
    r.CHAIN_PATH.name: [
        lambda: bundle(0, 1, 3),
        lambda: bundle(0),
        with_part("zonal", constraints=constraints(0)),
        with_part("regional", constraints=constraints(1)),
        with_part("root", constraints=constraints(2)),
        lambda: under(issue(*CAS, ca("second", 0), LEAF)),
        with_part("instance", constraints=NO_CA),
        with_part("instance", constraints=b""),
        with_part("instance", constraints=constraints(0, critical=False)),
        with_part("instance", usage=b""),
        with_part("instance", usage=extension(USAGE, SIGNS_CERTIFICATES, critical=False)),
        with_part("instance", usage=extension(USAGE, SIGNS_DOCUMENTS)),
        with_part("zonal", usage=extension(USAGE, SIGNS_LISTS)),
        with_part("regional", usage=extension(USAGE, SIGNS_DOCUMENTS)),
        with_part("leaf", constraints=constraints(None)),
        with_part("leaf", constraints=b""),
        with_part("leaf", constraints=extension(CONSTRAINTS, "3000", critical=False)),
        with_part("leaf", constraints=extension(CONSTRAINTS, "3003020100")),
        with_part("leaf", usage=b""),
        with_part("leaf", usage=extension(USAGE, SIGNS_LISTS)),
        with_part("zonal", issuer=named((COMMON_NAME, "other"))),
        with_part("zonal", issuer=named()),
        with_part("zonal", more=UNKNOWN_EXTENSION),
        with_part("zonal", more=NO_NAME_PERMITTED),
        with_part("zonal", algorithm=ECDSA_SHA256),
        with_part("zonal", version=b""),
        namesake,
    ],
    r.LEAF_SUBJECT.name: [
        lambda: check(document(module_id=MODULE_ID[:-1])),
        lambda: check(document(module_id="i-0123456789abcdef0-enc0123456789abcdee")),
        lambda: check(document(pki().issue("i-0aaa-enc0", now=NOW))),
        with_part("leaf", subject=named()),
        with_part("leaf", subject=common_name(MODULE_ID)),
        with_part("leaf", subject=named(*[(COMMON_NAME, f"{MODULE_ID}.aws")] * 2)),
    ],
    r.SIGNATURE_KEY.name: [
        with_part("leaf", curve=ec.SECP521R1()),
        with_part("leaf", curve=ec.SECP256R1()),
        with_part("leaf", curve=None),
        lambda: check(document(certificate=chain().certificate.replace(P384_OID, UNKNOWN_OID))),
    ],
    r.SIGNATURE.name: [
        lambda: check(other_key_signed()),
        lambda: check(half_swapped()),
        lambda: check(message(signature=bytes(96))),
        lambda: check(message(signature=ORDER.to_bytes(48, "big") + b"\1" * 48)),
        lambda: check(message(payload=encode_payload(fields(nonce=b"other")))),
    ],
    r.DEBUG.name: [
        zero_pcr0,
        lambda: check(with_pcrs({0: bytes(48), 4: b"\4" * 48})),
        lambda: check(with_pcrs({1: b"\1" * 48})),
    ],
    r.MEASUREMENTS.name: [
        lambda: measured({0: b"\2" * 48}),
        lambda: measured({0: PCRS[0], 8: b"\0" * 48}),
        lambda: measured({0: PCRS[0], 16: b"\0" * 48}),
    ],
    r.SANDBOX_PCR17.name: [
        lambda: measured({0: PCRS[0]}, with_pcrs(PCRS | {17: b"\1" * 48})),
        lambda: measured(PCRS, with_pcrs(PCRS | {17: bytes(47) + b"\1"})),
    ],
    r.AGE.name: [
        lambda: aged(NOW + timedelta(minutes=5) + timedelta(milliseconds=1)),
        lambda: aged(NOW - timedelta(minutes=1) - timedelta(milliseconds=1)),
    ],
    r.NONCE.name: [
        lambda: verify_attestation(document(nonce=b"n"), root=root(), nonce=b"m"),
        lambda: verify_attestation(document(nonce=b"n"), root=root(), nonce=b"nn"),
        lambda: verify_attestation(document(nonce=b""), root=root(), nonce=b"n"),
        lambda: verify_attestation(document(nonce=b"n"), root=root(), nonce=b""),
        lambda: verify_attestation(document(nonce=None), root=root(), nonce=b""),
        lambda: verify_attestation(without("nonce"), root=root(), nonce=b""),
    ],
}
CASES = [
    pytest.param(name, run, id=f"{name}-{number}")
    for name, runs in BREAKERS.items()
    for number, run in enumerate(runs)
]


def test_every_rule_has_documents_that_break_it() -> None:
    assert BREAKERS.keys() == RULES.keys()
    assert all(BREAKERS.values())


def test_what_the_breakers_change_is_all_that_is_wrong() -> None:
    for good in (document(), document(usual().chain)):
        assert cbor2.loads(good)[0] == ES384_PROTECTED
    assert check(message()) == check(document())
    assert under(usual()).module_id == MODULE_ID
    assert under(one_with("leaf", usage=extension(USAGE, SIGNS_DOCUMENTS))).module_id == MODULE_ID
    assert bundle(0, 1, 2, 3, good=True) == check(document())
    assert measured(PCRS) == check(document())
    assert aged(NOW).timestamp == NOW
    assert check(signed(padded(r.MAX_PAYLOAD))).module_id == MODULE_ID


@pytest.mark.parametrize(("name", "run"), CASES)
@pytest.mark.threat("G")
def test_a_broken_rule_is_named(name: str, run: Check) -> None:
    with pytest.raises(AttestationError) as caught:
        run()
    error, rule = caught.value, RULES[name]
    assert error.rule == name
    assert type(error) is rule.error
    text = str(error)
    assert text.startswith(f"{rule.demand}, but ")
    assert text.isprintable()
    assert len(text) < 600


def test_errors_survive_pickling() -> None:
    for rule in RULES.values():
        error = rule.broken("it is otherwise")
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
        assert (type(copy), copy.rule, str(copy)) == (type(error), rule.name, str(error))


def test_names_in_hostile_certificates_do_not_reach_the_text() -> None:
    name = f"{MODULE_ID}.\x1b[31mtrusted\nverified"
    with pytest.raises(AttestationError) as caught:
        under(one_with("leaf", subject=common_name(name), usage=b""))
    assert caught.value.rule == r.CHAIN_PATH.name
    assert str(caught.value).isprintable()
    assert "verified" not in str(caught.value)


GOOD: Mapping[str, Callable[[], bytes]] = {
    "untagged": document,
    "tag 18": lambda: signed(encode_payload(fields()), tag=18),
    "indefinite payload map": lambda: signed(encode_payload(fields(), indefinite=True)),
    "definite payload map": lambda: signed(encode_payload(fields(), indefinite=False)),
    "null optional fields": lambda: document(public_key=None, user_data=None, nonce=None),
    "absent optional fields": lambda: without("public_key", "user_data", "nonce"),
    "empty optional fields": lambda: document(public_key=b"", user_data=b"", nonce=b""),
    "1024-byte optional fields": lambda: document(
        public_key=b"k" * 1024, user_data=b"u" * 1024, nonce=b"n" * 1024
    ),
    "the longest public key": lambda: document(public_key=b"k" * 4050),
    "the longest user data": lambda: document(user_data=b"u" * 4050),
    "the longest nonce": lambda: document(nonce=b"n" * 4050),
    "PCR17 and no pin": lambda: with_pcrs(PCRS | {17: b"\1" * 48}),
    "1 PCR": lambda: with_pcrs({0: b"\1" * 48}),
    "16 PCRs": lambda: with_pcrs(dict.fromkeys(range(16), b"\1" * 48)),
    "17 PCRs": lambda: with_pcrs(dict.fromkeys(range(17), b"\1" * 48)),
    "32 PCRs": lambda: with_pcrs(dict.fromkeys(range(32), b"\1" * 48)),
    "high s": lambda: high_s(document(), high=True),
    "low s": lambda: high_s(document(), high=False),
    "unknown payload key": lambda: document(added_by_aws={"at": 1}),
    "unknown payload key, tagged": lambda: document(added_by_aws=cbor2.CBORTag(1, 1)),
    "unknown payload key, nested": lambda: document(added_by_aws=[[[1]]]),
    "keys in another order": lambda: signed(encode_payload(dict(sorted(fields().items())))),
    "the first millisecond": lambda: document(timestamp=int(NOW.timestamp() * 1000)),
    "unknown module kind": lambda: document(pki().issue("i-0-box1", now=NOW), module_id="i-0-box1"),
    "both kinds of PCRs": lambda: document(nitrotpm_pcrs={}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_genuine_documents_do_is_allowed(name: str) -> None:
    assert check(GOOD[name]()).timestamp == NOW


def test_a_field_of_the_longest_nsm_request() -> None:
    names = ("user_data", "nonce", "public_key")
    request = {"Attestation": dict.fromkeys(names) | {"nonce": bytes(r.MAX_FIELD)}}
    assert len(cbor2.dumps(request)) == 4096


def test_a_sandbox_is_pinned_with_its_pcr17() -> None:
    policy = {17: b"\1" * 48}
    assert measured(PCRS | policy, with_pcrs(PCRS | policy)).is_sandbox
    assert not measured(PCRS, with_pcrs(PCRS | {17: bytes(48)})).is_sandbox


def test_both_values_of_s_are_different_documents() -> None:
    given = document()
    assert len({high_s(given, high=True), high_s(given, high=False)}) == 2


def test_null_absent_and_empty_are_told_apart() -> None:
    assert check(document(nonce=None)).nonce is None
    assert check(without("nonce")).nonce is None
    assert check(document(nonce=b"")).nonce == b""


@pytest.mark.parametrize("moment", [NOW + timedelta(minutes=5), NOW - timedelta(minutes=1)])
def test_the_borders_of_the_allowed_age(moment: datetime) -> None:
    assert aged(moment).timestamp == NOW


@pytest.mark.parametrize("nonce", [b"", b"n", b"n" * 4050])
def test_a_nonce_that_is_the_request_s(nonce: bytes) -> None:
    assert verify_attestation(document(nonce=nonce), root=root(), nonce=nonce).nonce == nonce


def test_debug_mode_can_be_accepted() -> None:
    raw = with_pcrs(PCRS | {0: bytes(48)})
    assert verify_attestation(raw, root=root(), allow_debug=True).is_debug
    assert not check(document()).is_debug


def test_qemu_s_emulated_documents_are_refused() -> None:
    zeros = {index: bytes(48) for index in range(16)}
    payload = encode_payload(fields(pcrs=zeros, certificate=b"", cabundle=[b""]), indefinite=False)
    raw = cbor2.dumps([cbor2.dumps({1: -1}), {}, payload, bytes(64)])
    with pytest.raises(MalformedAttestation) as caught:
        check(raw)
    assert caught.value.rule == r.COSE_ALGORITHM.name
    # Even if it claimed the right algorithm and length.
    raw = cbor2.dumps([ES384_PROTECTED, {}, payload, bytes(96)])
    with pytest.raises(MalformedAttestation) as caught:
        check(raw)
    assert caught.value.rule == r.CERTIFICATE.name
