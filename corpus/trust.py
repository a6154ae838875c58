"""Cases on certificates, signatures, debug mode, measurements and nonces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from corpus.case import Case, each
from corpus.material import (
    BASE,
    DOMAIN,
    LEAF_FROM,
    LEAF_UNTIL,
    MODULE_ID,
    NONCE,
    NOW,
    PCRS,
    SIGNED_MS,
    chain,
    document,
    fields,
    good_chain,
    issued,
    key,
    key_ids,
    message,
    name,
    spki,
    without,
)
from emulator.documents import ES384_PROTECTED, encode_payload, sign_document
from emulator.pki import NitroChain
from tests.support.forge import ORDER
from tests.support.issued import (
    CONSTRAINTS,
    ECDSA_SHA256,
    NO_CA,
    POSITIONS,
    SIGNS_DOCUMENTS,
    SIGNS_LISTS,
    USAGE,
    Written,
    constraints,
    element,
    extension,
    utc_time,
)

SECOND: Final = timedelta(seconds=1)
PKIX: Final = "RFC 5280"
PATH: Final = f"AWS 23; {PKIX} section 6.1"
UNKNOWN_CRITICAL: Final = extension(bytes.fromhex("0603551d7f"), "0500")
FORGERY: Final = ("Forgery",)
OWN: Final = ("StricterThanAws",)


def all_trust() -> Iterator[Case]:
    """Yield the cases in the order of a verifier's steps."""
    yield from good_chains()
    yield from bundle_order()
    yield from clocks()
    yield from ca_extensions()
    yield from leaf_extensions()
    yield from forged_chains()
    yield from broken_certificates()
    yield from leaf_names_and_keys()
    yield from good_signatures()
    yield from bad_signatures()
    yield from altered_payloads()
    yield from debug_mode()
    yield from measurements()
    yield from sandboxes()
    yield from nonces()


def good_chains() -> Iterator[Case]:
    """Yield chains that a verifier must accept, and odd ones that it may."""
    older = chain(instance={"more": b""})
    text = "The instance CA has no key identifiers, as before July 2024."
    yield Case("chain-path", "no-key-ids", text, document(older), "valid", ("GenuineForm",))
    both = extension(USAGE, "030206c0", critical=False)
    text = "The leaf's key usage has contentCommitment too."
    yield Case("chain-path", "leaf-usage", text, document(chain(leaf={"usage": both})), "valid")
    critical = extension(USAGE, SIGNS_DOCUMENTS)
    text = "The leaf's key usage is critical, as RFC 5280 recommends."
    raw = document(chain(leaf={"usage": critical}))
    yield Case("chain-path", "leaf-usage-critical", text, raw, "valid")
    short = issued(BASE["root"], BASE["instance"], BASE["leaf"])
    text = "A shorter chain: root, instance, leaf."
    yield Case("chain-path", "short-chain", text, document(short), "acceptable", OWN)
    info = extension(bytes.fromhex("0603551d12"), "3003820161", critical=False)
    raw = document(chain(leaf={"more": info}))
    text = "The leaf has one more extension, which is not critical."
    yield Case("chain-path", "leaf-extension", text, raw, "acceptable", OWN)


def bundle_order() -> Iterator[Case]:
    """Yield bundles that lead to the root only for a verifier that sorts them, or not at all."""
    good = good_chain()
    orders = {
        "no-root": (1, 2, 3),
        "reversed": (3, 2, 1, 0),
        "swapped": (0, 2, 1, 3),
        "root-last": (1, 2, 3, 0),
        "twice": (0, 1, 1, 2, 3),
        "root-twice": (0, 1, 2, 3, 0),
    }
    for case, order in orders.items():
        raw = document(replace(good, cabundle=tuple(good.cabundle[i] for i in order)))
        text = f"The path is there, but cabundle is not the path in order ({case})."
        yield Case("chain-order", case, text, raw, "acceptable", ("NonCanonical",), "AWS 18")
    stranger = issued(_attacker_root(), BASE["leaf"]).cabundle[0]
    raw = document(replace(good, cabundle=(*good.cabundle, stranger)))
    text = "A certificate beside the path is at the end."
    yield Case("chain-order", "stranger", text, raw, "acceptable", ("NonCanonical",), "AWS 18")
    for case, order in {
        "no-regional": (0, 2, 3),
        "no-zonal": (0, 1, 3),
        "no-instance": (0, 1, 2),
        "only-root": (0,),
    }.items():
        raw = document(replace(good, cabundle=tuple(good.cabundle[i] for i in order)))
        yield Case("chain-path", case, f"The path has a gap ({case}).", raw, source=PATH)


def clocks() -> Iterator[Case]:
    """Yield times at which the certificates are valid, and at which one is not."""
    good, leaf = document(), "AWS 19; RFC 5280 section 4.1.2.5"
    for case, moment in {"first": LEAF_FROM, "last": LEAF_UNTIL}.items():
        text = f"Judged in the {case} second of the leaf certificate's validity."
        yield Case(
            "chain-validity", f"{case}-second", text, good, "valid", source=leaf, time=moment
        )
    moments = {
        "second-early": LEAF_FROM - SECOND,
        "second-late": LEAF_UNTIL + SECOND,
        "hour-early": LEAF_FROM - timedelta(hours=1),
        "day-late": NOW + timedelta(days=1),
        "year-late": NOW + timedelta(days=365),
        "in-1970": datetime(1970, 1, 2, tzinfo=UTC),
        "in-2060": datetime(2060, 1, 1, tzinfo=UTC),
    }
    for case, moment in moments.items():
        text = f"The leaf is valid when the document was signed, but not at `time` ({case})."
        yield Case("chain-validity", case, text, good, flags=("WrongClock",), time=moment)
    old = timedelta(days=1700)
    times = {
        "not_before": utc_time(NOW - old - timedelta(hours=12)),
        "not_after": utc_time(NOW - old + timedelta(hours=12)),
    }
    past = chain(**{position: dict(times) for position in POSITIONS[1:]})
    text = (
        "An old document, judged when it was signed: a verifier has to take the time it is given."
    )
    at = SIGNED_MS - int(old.total_seconds() * 1000)
    raw = document(past, timestamp=at)
    yield Case("chain-validity", "old", text, raw, "valid", ("WrongClock",), time=NOW - old)
    text = "All certificates but the root expired years ago; the signed timestamp says today."
    yield Case("chain-validity", "old-claims-today", text, document(past), flags=("WrongClock",))
    text = "All certificates but the root expired years ago, and so says the signed timestamp."
    yield Case("chain-validity", "old-today", text, raw, flags=("WrongClock",))
    for position in POSITIONS[1:]:
        for case, change in {
            "expired": {"not_after": utc_time(NOW - SECOND)},
            "not-yet-valid": {"not_before": utc_time(NOW + SECOND)},
        }.items():
            raw = document(chain(**{position: dict(change)}))
            text = f"The {position} certificate is {case.replace('-', ' ')}; all others are valid."
            yield Case("chain-validity", f"{position}-{case}", text, raw)
    for case, when, moment in (
        ("expired", "expired a month ago", datetime(2049, 12, 1, tzinfo=UTC)),
        ("not-yet-valid", "is valid in a month only", datetime(2019, 10, 1, tzinfo=UTC)),
    ):
        times = {
            "not_before": utc_time(moment - timedelta(days=1)),
            "not_after": utc_time(moment + timedelta(days=1)),
        }
        others = chain(**{position: dict(times) for position in POSITIONS[1:]})
        text = f"The root {when}; all others are valid."
        raw = document(others, timestamp=int(moment.timestamp() * 1000))
        yield Case("chain-validity", f"root-{case}", text, raw, time=moment)
    never = {"not_before": utc_time(NOW + SECOND), "not_after": utc_time(NOW - SECOND)}
    text = "The zonal certificate ends before it begins."
    yield Case("chain-validity", "never", text, document(chain(zonal=dict(never))))
    general = {"not_after": element(0x18, b"20260301235959Z")}
    text = "A time before 2050 is a GeneralizedTime."
    raw = document(chain(zonal=dict(general)))
    yield Case(
        "chain-validity", "generalized-time", text, raw, "acceptable", ("NonCanonical",), leaf
    )


def ca_extensions() -> Iterator[Case]:
    """Yield CAs that are none, or that may not issue what they issued."""
    basic, usage = f"AWS 20; {PKIX} section 4.2.1.9", f"AWS 21; {PKIX} section 4.2.1.3"
    names = element(0x30, element(0xA0, element(0x30, element(0xA4, name(CN="elsewhere")))))
    elsewhere = extension(bytes.fromhex("0603551d1e"), names.hex())
    wrong: Mapping[str, tuple[dict[str, object], str]] = {
        "not-a-ca": ({"constraints": NO_CA}, basic),
        "no-constraints": ({"constraints": b""}, basic),
        "constraints-not-critical": ({"constraints": constraints(3, critical=False)}, basic),
        "no-usage": ({"usage": b""}, usage),
        "usage-signature": ({"usage": extension(USAGE, SIGNS_DOCUMENTS)}, usage),
        "usage-lists": ({"usage": extension(USAGE, SIGNS_LISTS)}, usage),
        "version-1": ({"version": b""}, f"{PKIX} section 4.1.2.1"),
        "other-issuer": ({"issuer": name(CN="other")}, f"AWS 23; {PKIX} section 6.1.3"),
        "unknown-critical": ({"more": UNKNOWN_CRITICAL}, f"{PKIX} section 4.2"),
        "name-constraints": ({"more": elsewhere}, f"{PKIX} section 4.2.1.10"),
        "sha256-inside": ({"algorithm": ECDSA_SHA256}, f"{PKIX} section 4.1.1.2"),
    }
    for position in ("regional", "zonal", "instance"):
        for case, (change, source) in wrong.items():
            text = f"The {position} CA: {case.replace('-', ' ')}."
            raw = document(chain(**{position: change}))
            yield Case("chain-path", f"{position}-{case}", text, raw, source=source)
        change = {"usage": extension(USAGE, "03020204", critical=False)}
        text = f"The {position} CA's key usage is not critical, which {PKIX} only recommends."
        raw = document(chain(**{position: change}))
        yield Case(
            "chain-path", f"{position}-usage-not-critical", text, raw, "acceptable", OWN, usage
        )
    for position, length in {"regional": 1, "zonal": 0}.items():
        raw = document(chain(**{position: {"constraints": constraints(length)}}))
        text = f"The {position} CA's path length is one too small."
        yield Case("chain-path", f"{position}-path-length", text, raw, source=basic)
    second = replace(BASE["instance"], subject=name(CN="second"), key=key("second"), more=b"")
    text = "The instance CA, of path length 0, issued another CA."
    yield Case("chain-path", "fifth-ca", text, document(chain(second)), source=basic)


def leaf_extensions() -> Iterator[Case]:
    """Yield leaf certificates that may not sign, or that are CAs."""
    source = f"AWS 22; {PKIX} section 4.2.1"
    wrong: Mapping[str, dict[str, object]] = {
        "is-a-ca": {"constraints": constraints(None)},
        "is-a-ca-of-length-0": {"constraints": constraints(0)},
        "has-a-path-length": {"constraints": extension(CONSTRAINTS, "3003020100")},
        "no-usage": {"usage": b""},
        "usage-lists": {"usage": extension(USAGE, SIGNS_LISTS)},
        "usage-certificates": {"usage": extension(USAGE, "03020204")},
        "usage-agreement": {"usage": extension(USAGE, "03020308")},
        "unknown-critical": {"more": UNKNOWN_CRITICAL},
        "other-issuer": {"issuer": name(CN="other")},
    }
    for case, change in wrong.items():
        text = f"The leaf: {case.replace('-', ' ')}."
        yield Case("chain-path", f"leaf-{case}", text, document(chain(leaf=change)), source=source)
    odd: Mapping[str, dict[str, object]] = {
        "no-constraints": {"constraints": b""},
        "constraints-not-critical": {"constraints": extension(CONSTRAINTS, "3000", critical=False)},
    }
    for case, change in odd.items():
        text = f"The leaf: {case.replace('-', ' ')}. No genuine document has such a one."
        raw = document(chain(leaf=change))
        yield Case("chain-path", f"leaf-{case}", text, raw, "acceptable", OWN, source)


def forged_chains() -> Iterator[Case]:
    """Yield chains that somebody makes who has an enclave's key at most."""
    good = good_chain()
    evil_root = _attacker_root()
    evil_leaf = replace(BASE["leaf"], key=key("attacker leaf"))
    evil = issued(evil_root, *(BASE[at] for at in ("regional", "zonal", "instance")), evil_leaf)
    text = "All is well, but under another root of the same name."
    raw = document(evil)
    yield Case("chain-order", "other-root", text, raw, flags=FORGERY, source="AWS 24")
    forged: Mapping[str, tuple[str, NitroChain]] = {
        "real-root-first": (
            "As before, with the trusted root in place of the other in cabundle.",
            replace(evil, cabundle=(good.cabundle[0], *evil.cabundle[1:])),
        ),
        "both-roots": (
            "As before, with both roots in cabundle.",
            replace(evil, cabundle=(good.cabundle[0], *evil.cabundle)),
        ),
        "under-a-leaf": (
            "A genuine leaf certificate, in the place of a CA, issued another leaf.",
            chain(replace(BASE["leaf"], key=key("leaf")), leaf={"key": key("attacker leaf")}),
        ),
        "self-signed": (
            "The leaf signed itself, under the name of the genuine one.",
            replace(issued(evil_leaf), cabundle=good.cabundle),
        ),
        "leaf-of-another-issuer": (
            "The leaf names the instance CA, but the attacker's key signed it.",
            replace(
                issued(replace(BASE["instance"], key=key("attacker")), evil_leaf),
                cabundle=good.cabundle,
            ),
        ),
        "key-swapped": (
            "The attacker's key is in the genuine leaf certificate.",
            NitroChain(key("attacker leaf"), _swapped_key(good.certificate), good.cabundle),
        ),
    }
    for case, (text, made) in forged.items():
        source = f"AWS 20; {PKIX} section 4.2.1.9" if case == "under-a-leaf" else PATH
        yield Case("chain-path", case, text, document(made), flags=FORGERY, source=source)


def broken_certificates() -> Iterator[Case]:
    """Yield certificates that were altered after they had been signed."""
    good = good_chain()
    ders = dict(zip(POSITIONS, (*good.cabundle, good.certificate), strict=True))
    for position in POSITIONS[1:]:
        der = ders[position]
        broken = der[:-1] + bytes([der[-1] ^ 1])
        text = f"One bit of the {position} certificate's signature is another."
        yield _altered("chain-path", f"{position}-signature", text, {**ders, position: broken})
    until, later = BASE["leaf"].not_after, utc_time(LEAF_UNTIL + timedelta(days=300))
    edits = {
        "leaf-lifetime": ("leaf", until, later),
        "instance-length": ("instance", b"\xff\x02\x01\0", b"\xff\x02\x01\x09"),
        "zonal-serial": ("zonal", BASE["zonal"].serial, element(0x02, b"\1" * 16)),
        "regional-usage": ("regional", bytes.fromhex("03020186"), bytes.fromhex("03020187")),
    }
    for case, (position, old, new) in edits.items():
        der = ders[position].replace(old, new)
        text = f"The {position} certificate was edited after it had been signed ({case})."
        made = _altered("chain-path", case, text, {**ders, position: der})
        yield replace(made, time=NOW + timedelta(hours=4)) if case == "leaf-lifetime" else made
    root = ders["root"][:-1] + bytes([ders["root"][-1] ^ 1])
    text = (
        "cabundle's root has another signature than the trusted root; nobody needs to look at it."
    )
    made = _altered("chain-order", "root-signature", text, {**ders, "root": root})
    yield replace(made, verdict="acceptable", flags=OWN, source="AWS 24")
    raw = document(chain(leaf={"version": bytes.fromhex("a003020101")}))
    text = "The leaf is of X.509 version 2, with extensions."
    yield Case("certificate", "version-2", text, raw, source=f"{PKIX} section 4.1.2.1")
    raw = document(chain(leaf={"serial": element(0x02, b"\xff\1")}))
    text = f"The leaf's serial number is negative, which {PKIX} forbids and readers must bear."
    source = f"{PKIX} section 4.1.2.2"
    yield Case("certificate", "negative-serial", text, raw, "acceptable", OWN, source)


def leaf_names_and_keys() -> Iterator[Case]:
    """Yield leaves of other names than the module's, and with other keys than on P-384."""
    subjects = {
        "none": element(0x30),
        "no-region": name(CN=MODULE_ID),
        "other": name(CN="i-0-enc0.us-east-1.aws"),
        "ca-s": name(CN=f"{MODULE_ID}.{DOMAIN}"),
    }
    for case, subject in subjects.items():
        text = f"The leaf's subject is not `<module id>.<region>.aws` ({case})."
        raw = document(chain(leaf={"subject": subject}))
        yield Case("leaf-subject", case, text, raw, "acceptable", OWN)
    text = "module_id is that of another enclave than the leaf's subject says."
    raw = document(module_id=MODULE_ID[:-1] + "0")
    yield Case("leaf-subject", "other-module", text, raw, "acceptable", OWN)
    modulus = int.from_bytes(b"\xc5" + b"corpus " * 36 + b"mod", "big") | 1
    rsa = RSAPublicNumbers(65537, modulus).public_key()
    rsa_spki = rsa.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    curve = bytes.fromhex("06052b81040022")
    good = spki(key("leaf"))
    algorithm = element(0x30, bytes.fromhex("06072a8648ce3d0201"), curve)
    keys = {
        "rsa": ("an RSA key", rsa_spki),
        "p521": ("a P-521 key", spki(key("leaf", ec.SECP521R1()))),
        "p256": ("a P-256 key", spki(key("leaf", ec.SECP256R1()))),
        "k256": ("a secp256k1 key", spki(key("leaf", ec.SECP256K1()))),
        "unknown-curve": ("a key on an unknown curve", good.replace(curve, curve[:-1] + b"\x7f")),
        "off-curve": ("a point that is not on the curve", good[:-1] + bytes([good[-1] ^ 1])),
        "infinity": ("the point at infinity", element(0x30, algorithm, element(0x03, b"\0\0"))),
    }
    for case, (what, der) in keys.items():
        raw = document(chain(leaf={"spki": der}))
        text = f"The leaf holds {what}; the signature is by a P-384 key."
        yield Case("signature-key", case, text, raw, flags=("AlgorithmConfusion",))
    p256 = replace(
        chain(leaf={"key": key("leaf", ec.SECP256R1())}), key=key("leaf", ec.SECP256R1())
    )
    text = "The leaf holds a P-256 key, whose signature has zeros up to 96 bytes."
    source = "AWS 5; RFC 9053 section 2.1"
    flags = ("AlgorithmConfusion",)
    yield Case("signature-key", "p256-padded", text, document(p256), flags=flags, source=source)


def good_signatures() -> Iterator[Case]:
    """Yield valid signatures of all forms."""
    raw, source = document(), "AWS 6; RFC 9053 section 2.1"
    signature = cbor2.loads(raw)[3]
    r, s = signature[:48], int.from_bytes(signature[48:], "big")
    for case, value in {"high-s": max(s, ORDER - s), "low-s": min(s, ORDER - s)}.items():
        changed = message(signature=r + value.to_bytes(48, "big"))
        text = f"A valid signature with {case.replace('-', ' ')}."
        flags = ("GenuineForm",) + (("HighS",) if case == "high-s" else ())
        yield Case("signature", case, text, changed, "valid", flags, source)
    for case, start in {"r-leading-zero": 0, "s-leading-zero": 48}.items():
        number = 0
        while cbor2.loads(raw := document(user_data=f"{case} {number:160}".encode()))[3][start]:
            number += 1
        text = f"A valid signature whose {case[0]} begins with a zero byte."
        yield Case("signature", case, text, raw, "valid", ("GenuineForm",), source)


def bad_signatures() -> Iterator[Case]:
    """Yield signatures by another key, over something else, or of impossible values."""
    payload, source = encode_payload(fields()), "AWS 6; RFC 9052 section 4.4"
    raw = sign_document(payload, key("attacker leaf"))
    text = "Another key has signed."
    yield Case("signature", "other-key", text, raw, flags=FORGERY, source=source)
    for position in POSITIONS[:-1]:
        raw = sign_document(payload, key(position))
        text = f"The {position} CA's key has signed, not the leaf's."
        yield Case("signature", f"{position}-key", text, raw, source=source)
    good = cbor2.loads(document())[3]
    r, s, n = good[:48], good[48:], ORDER.to_bytes(48, "big")
    zero, one = bytes(48), (1).to_bytes(48, "big")
    values = {
        "zeros": zero + zero,
        "r-zero": zero + s,
        "s-zero": r + zero,
        "r-n": n + s,
        "s-n": r + n,
        "r-n-s-one": n + one,
        "ones": one + one,
        "all-bits": b"\xff" * 96,
        "swapped": s + r,
        "little-endian": r[::-1] + s[::-1],
        "bit": good[:-1] + bytes([good[-1] ^ 1]),
        "first-bit": bytes([good[0] ^ 0x80]) + good[1:],
        "negative-r": (ORDER - int.from_bytes(r, "big")).to_bytes(48, "big") + s,
    }
    yield from each(
        "signature", "value-{}", "r and s are not those of a valid signature ({}).",
        {case: message(signature=value) for case, value in values.items()},
        flags=FORGERY, source="AWS 6; FIPS 186-5 section 6.4.2",
    )  # fmt: skip
    encoded = encode_payload(fields(), indefinite=False)
    to_be_signed = partial(_to_be_signed, payload=payload)
    good_content = to_be_signed()
    without_data = cbor2.dumps(["Signature1", ES384_PROTECTED, payload])
    contents: Mapping[str, tuple[str, bytes]] = {
        "payload-only": ("the bare payload", payload),
        "array-context": ("a COSE_Sign structure's context", to_be_signed("Signature")),
        "external-data": ("external data too", to_be_signed(aad=b"x")),
        "no-external-data": ("a structure without external data", without_data),
        "other-header": ("another protected header", to_be_signed(protected=b"\xa1\x01\x26")),
        "no-header": ("an empty protected header", to_be_signed(protected=b"")),
        "definite-payload": (
            "the payload encoded again, with a definite length",
            to_be_signed(payload=encoded),
        ),
        "sha256": ("a SHA-256 digest", good_content),
        "sha512": ("a SHA-512 digest", good_content),
    }
    digests = {"sha256": SHA256(), "sha512": SHA512()}
    for case, (what, content) in contents.items():
        text = f"The leaf's key has signed {what}."
        raw = message(signature=_signature(content, digests.get(case, SHA384())))
        yield Case("signature", f"over-{case}", text, raw, source=source)


def altered_payloads() -> Iterator[Case]:
    """Yield genuine signatures under another payload."""
    changes: Mapping[str, dict[str, object]] = {
        "pcr0": {"pcrs": PCRS | {0: b"\1" * 48}},
        "pcr0-bit": {"pcrs": PCRS | {0: bytes([PCRS[0][0] ^ 1]) + PCRS[0][1:]}},
        "pcr-added": {"pcrs": PCRS | {16: b"\1" * 48}},
        "user-data-null": {"user_data": None},
        "timestamp": {"timestamp": SIGNED_MS + 1},
        "nonce": {"nonce": b"other"},
        "nonce-null": {"nonce": None},
        "user-data": {"user_data": b"other"},
        "public-key": {"public_key": b"attacker's"},
        "field-added": {"added": 1},
    }
    yield from each(
        "signature", "altered-{}", "The payload was changed after it had been signed ({}).",
        {case: message(payload=encode_payload(fields(**to))) for case, to in changes.items()},
        flags=("AlteredAfterSigning", "Forgery"),
    )  # fmt: skip
    leaf = chain(leaf={"key": key("attacker leaf")}).certificate
    raw = message(payload=encode_payload(fields(certificate=leaf)))
    text = "Another valid leaf certificate of the same module is in the payload."
    yield Case("signature", "altered-certificate", text, raw, flags=("AlteredAfterSigning",))
    raw = message(payload=encode_payload(fields(), indefinite=False))
    text = "The payload means the same, but was encoded again."
    yield Case("signature", "altered-encoding", text, raw, flags=("AlteredAfterSigning",))


def debug_mode() -> Iterator[Case]:
    """Yield documents of enclaves in debug mode, which prove nothing about their code."""
    zero = bytes(48)
    source = "AWS Nitro Enclaves User Guide, Cryptographic attestation: debug mode"
    zeros: Mapping[str, dict[int, bytes]] = {
        "genuine": PCRS | dict.fromkeys((0, 1, 2, 8), zero),
        "pcr0-only": PCRS | {0: zero},
        "all-zero": dict.fromkeys(range(16), zero),
        "one-pcr": {0: zero},
        "32-pcrs": dict.fromkeys(range(32), zero),
    }
    debug = partial(Case, "debug-mode", flags=("DebugMode",), source=source)
    for case, pcrs in zeros.items():
        raw, text = document(pcrs=pcrs), f"PCR0 is zero ({case})."
        yield debug(case, f"{text} Nothing is expected.", raw)
        text = f"{text} Another PCR0 is expected."
        yield debug(f"{case}-expected", text, raw, pcrs={0: PCRS[0]})
    text = "PCR0 to PCR2 are zero. PCR4 is expected, and right."
    yield debug("pcr4-expected", text, document(pcrs=zeros["genuine"]), pcrs={4: PCRS[4]})
    debug = partial(debug, flags=("DebugMode", "MissingPcr"))
    raw = document(pcrs={index: pcr for index, pcr in PCRS.items() if index})
    yield debug("no-pcr0", "PCR0 is missing, and expected.", raw, pcrs={0: PCRS[0]})
    text = "PCR0 is missing. PCR1 is expected, and right."
    yield debug("no-pcr0-pcr1", text, raw, pcrs={1: PCRS[1]})


def measurements() -> Iterator[Case]:
    """Yield the good document with right and wrong expectations."""
    compare = partial(Case, "measurements")
    good = document()
    right = {
        "pcr0": (0,),
        "pcr0-to-2": (0, 1, 2),
        "pcr0-and-8": (0, 8),
        "all": tuple(range(16)),
        "pcr0-and-9": (0, 9),
    }
    for case, indices in right.items():
        text = f"The expected PCRs are the document's ({case})."
        pcrs = {i: PCRS[i] for i in indices}
        yield compare(f"right-{case}", text, good, "valid", pcrs=pcrs)
    flipped = {i: bytes([pcr[0] ^ 0x80]) + pcr[1:] for i, pcr in PCRS.items()}
    last = {i: pcr[:-1] + bytes([pcr[-1] ^ 1]) for i, pcr in PCRS.items()}
    wrong: Mapping[str, Mapping[int, bytes]] = {
        **{f"pcr{i}": {0: PCRS[0], i: flipped[i]} for i in (0, 1, 2, 3, 4, 8, 15)},
        "pcr0-last-bit": {0: last[0]},
        "only-pcr8": {8: flipped[8]},
        "swapped": {0: PCRS[1], 1: PCRS[0]},
        "all-but-one": PCRS | {2: flipped[2]},
        "zero-pcr9-expected": {0: PCRS[0], 9: b"\1" * 48},
        "missing-16": {0: PCRS[0], 16: b"\1" * 48},
        "missing-16-zero": {0: PCRS[0], 16: bytes(48)},
        "missing-31": {0: PCRS[0], 31: bytes(48)},
        "only-missing": {16: b"\1" * 48},
    }
    for case, expected in wrong.items():
        text = f"An expected PCR is not the document's ({case})."
        flags = ("MissingPcr",) if "missing" in case else ()
        yield compare(f"wrong-{case}", text, good, flags=flags, pcrs=expected)
    few = document(pcrs={0: PCRS[0]})
    absent = partial(compare, document=few, flags=("MissingPcr",))
    for case, index in {"pcr1": 1, "pcr2": 2, "pcr4": 4, "pcr8": 8}.items():
        text = f"The document has PCR0 only; {case} is expected too."
        yield absent(f"absent-{case}", text, pcrs={0: PCRS[0], index: PCRS[index]})
    text = "The document has PCR0 only; a zero PCR8 is expected too."
    yield absent("absent-zero-pcr8", text, pcrs={0: PCRS[0], 8: bytes(48)})


def sandboxes() -> Iterator[Case]:
    """Yield documents with a PCR17 that says what runs, which PCR0 alone does not."""
    sandbox = document(pcrs=PCRS | {17: b"\x17" * 48})
    text = "PCR17 measures the workload of a confidential Nitro Sandbox; only PCR0 is expected."
    yield Case("sandbox-pcr17", "pcr0-alone", text, sandbox, "acceptable", pcrs={0: PCRS[0]})


def nonces() -> Iterator[Case]:
    """Yield documents with the request's nonce, with another and with none."""
    compare = partial(Case, "nonce", source="RFC 9334 section 10.2")
    yield compare("right", "The document has the nonce.", document(), "valid", nonce=NONCE)
    for case, size, nonce in (("byte", "one byte", b"\0"), ("512", "512 bytes", b"n" * 512)):
        raw, text = document(nonce=nonce), f"The nonce has {size}."
        yield compare(f"right-{case}", text, raw, "valid", nonce=nonce)
    wrong: Mapping[str, bytes] = {
        "other": document(nonce=b"another nonce"),
        "prefix": document(nonce=NONCE[:-1]),
        "longer": document(nonce=NONCE + b"\0"),
        "bit": document(nonce=bytes([NONCE[0] ^ 1]) + NONCE[1:]),
        "case": document(nonce=NONCE.upper()),
        "hexadecimal": document(nonce=NONCE.hex().encode()),
        "empty": document(nonce=b""),
        "null": document(nonce=None),
        "absent": without("nonce"),
        "in-user-data": document(nonce=None, user_data=NONCE),
        "in-public-key": document(nonce=None, public_key=NONCE),
        "unknown-key": without("nonce", Nonce=NONCE),
    }
    for case, raw in wrong.items():
        text = f"The document does not have the expected nonce ({case})."
        yield compare(f"wrong-{case}", text, raw, nonce=NONCE)


def _attacker_root() -> Written:
    """Return a root of the trusted one's name with another key."""
    return replace(BASE["root"], key=key("attacker root"), more=key_ids("attacker root", None))


def _swapped_key(leaf: bytes) -> bytes:
    return leaf.replace(spki(key("leaf")), spki(key("attacker leaf")))


def _altered(rule: str, case: str, comment: str, ders: Mapping[str, bytes]) -> Case:
    *bundle, leaf = (ders[position] for position in POSITIONS)
    made = NitroChain(key("leaf"), leaf, tuple(bundle))
    return Case(rule, f"altered-{case}", comment, document(made), flags=FORGERY, source=PATH)


def _to_be_signed(
    context: str = "Signature1",
    protected: bytes = ES384_PROTECTED,
    aad: bytes = b"",
    *,
    payload: bytes,
) -> bytes:
    return cbor2.dumps([context, protected, aad, payload])


def _signature(content: bytes, digest: HashAlgorithm) -> bytes:
    """Return the leaf's signature of any content."""
    algorithm = ec.ECDSA(digest, deterministic_signing=True)
    r, s = decode_dss_signature(key("leaf").sign(content, algorithm))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")
