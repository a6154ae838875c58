"""Cases on form: CBOR, COSE and the payload's fields."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import cbor2

from corpus.case import Case, Verdict, each
from corpus.material import (
    MODULE_ID,
    PCRS,
    SIGNED_MS,
    document,
    fields,
    good_chain,
    message,
    signed,
    without,
)
from emulator.documents import ES384_PROTECTED, encode_payload

CBOR: Final = "RFC 8949"
COSE: Final = "RFC 9052"
SEQUENCE_OF_TWO: Final = f"{CBOR} section 5.3.1"
UNIQUE_KEYS: Final = f"{CBOR} section 5.6"
MANDATORY: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")


def all_forms() -> Iterator[Case]:
    """Yield the cases in the order in which a verifier meets the parts."""
    yield from genuine_forms()
    yield from outer_cbor()
    yield from cose()
    yield from payload_cbor()
    yield from duplicate_keys()
    yield from mandatory_fields()
    yield from scalar_fields()
    yield from pcr_maps()
    yield from certificate_fields()
    yield from optional_fields()


def genuine_forms() -> Iterator[Case]:
    """Yield what a verifier must accept, because genuine documents look like it."""
    good = partial(Case, verdict="valid", flags=("GenuineForm",))
    text = "The good document, from which every other differs in one thing."
    yield good("cbor", "good", text, document())
    payload = encode_payload(fields())
    yield good("cose-tag", "tag-18", "The optional tag of COSE_Sign1.", signed(payload, tag=18))
    definite = encode_payload(fields(), indefinite=False)
    text = "The payload is a map of definite length, as until 2025."
    yield good("payload-cbor", "definite-map", text, signed(definite))
    text = "The payload is a map of indefinite length, as since 2025."
    yield good("payload-cbor", "indefinite-map", text, signed(payload))
    for count in (17, 24, 32):
        raw = document(pcrs=PCRS | dict.fromkeys(range(16, count), bytes(48)))
        yield good("pcrs", f"{count}-pcrs", f"{count} PCRs are locked.", raw)
    optional = partial(good, "optional-fields")
    raw = document(public_key=None, user_data=None, nonce=None)
    yield optional("null", "Unset fields are null.", raw)
    raw = without("public_key", "user_data", "nonce")
    yield optional("absent", "Unset fields are absent, as AWS's text has it.", raw)
    raw = document(public_key=b"k" * 1024, user_data=b"u" * 1024, nonce=b"n" * 1024)
    yield optional("1024-bytes", "All three fields have 1024 bytes, as AWS's CDDL allows.", raw)
    for field in ("user_data", "nonce"):
        name, text = field.replace("_", "-"), f"{field} is empty, which is not null."
        yield optional(f"empty-{name}", text, document(**{field: b""}))
    text = "user_data is longer than section 3.2.2.2 of AWS's text says."
    yield optional("513-bytes-user-data", text, document(user_data=b"u" * 513))


def outer_cbor() -> Iterator[Case]:
    """Yield what is no single well-formed CBOR item, or no COSE_Sign1 array."""
    good = document()
    yield Case("size", "empty", "Nothing at all.", b"")
    for name, size in (("1-byte", 1), ("headers", 9), ("half", len(good) // 2), ("short", -1)):
        text = "The document is cut off."
        yield Case("cbor", f"cut-{name}", text, good[:size], source=f"{CBOR} section 5.3.1")
    tails = {"zero": b"\0", "break": b"\xff", "null": b"\xf6", "document": good}
    yield from each(
        "cbor", "trailing-{}", "After the document comes more ({}).",
        {name: good + tail for name, tail in tails.items()},
        flags=("TrailingBytes",), source=SEQUENCE_OF_TWO,
    )  # fmt: skip
    broken = {
        "reserved": ("An initial byte that CBOR reserves.", b"\x1c"),
        "break": ("A break outside of any item.", b"\xff"),
        "unended": ("An array of indefinite length without its end.", b"\x9f" + good[1:]),
    }
    heavy = {
        "huge-array": ("An array that claims 2^64 - 1 items.", b"\x9b" + b"\xff" * 8),
        "huge-bytes": (
            "A byte string that claims 2^63 bytes.",
            b"\x84\x44\xa1\x01\x38\x22\xa0\x5b\x80" + bytes(7),
        ),
        "deep": ("Ten thousand arrays in one another.", b"\x81" * 10_000 + b"\x00"),
        "deep-header": (
            "An unprotected header with five thousand arrays in one another.",
            good[:6] + b"\xa1\x04" + b"\x81" * 5000 + b"\x00" + good[7:],
        ),
    }
    for name, (text, raw) in (broken | heavy).items():
        flags = ("ResourceUse",) if name in heavy else ()
        yield Case("cbor", name, text, raw, flags=flags, source=f"{CBOR} section 3")
    for tag in (17, 61, 98, 55799):
        raw = signed(encode_payload(fields()), tag=tag)
        yield Case("cose-tag", f"tag-{tag}", f"Tag {tag} in place of COSE_Sign1's 18.", raw)
    yield Case("cose-array", "tag-18-twice", "The tag comes twice.", b"\xd2\xd2" + good)
    parts = list(cbor2.loads(good))
    arrays = {
        "3-items": parts[:3],
        "5-items": [*parts, b""],
        "no-items": [],
        "map": dict(enumerate(parts)),
        "byte-string": good,
        "text": base64.b64encode(good).decode(),
        "null": None,
        "nested": [parts],
    }
    yield from each(
        "cose-array", "{}", "No array of four items ({}).",
        {name: cbor2.dumps(item) for name, item in arrays.items()},
        source=f"AWS 1; {COSE} section 4.2",
    )  # fmt: skip
    for name, head in {"array-length": b"\x98\x04", "indefinite-array": b"\x9f"}.items():
        raw = head + good[1:] + b"\xff" * (name == "indefinite-array")
        text = "The outer array's length is written in another way."
        yield Case("cose-array", name, text, raw, "acceptable", ("NonCanonical",))


def cose() -> Iterator[Case]:
    """Yield what is wrong with the headers, or with the form of payload or signature."""
    payload = encode_payload(fields())
    crit = f"{COSE} section 3.1"
    headers: Mapping[str, tuple[str, bytes]] = {
        "es256": ("The algorithm is ES256.", cbor2.dumps({1: -7})),
        "es512": ("The algorithm is ES512.", cbor2.dumps({1: -36})),
        "ps384": ("The algorithm is PS384.", cbor2.dumps({1: -38})),
        "hmac": ("The algorithm is HMAC 256/256.", cbor2.dumps({1: 5})),
        "reserved": ("The algorithm is 0, which is reserved.", cbor2.dumps({1: 0})),
        "positive": ("The algorithm is +34, whose CBOR looks like -35.", b"\xa1\x01\x18\x22"),
        "text": ("The algorithm is the text ES384.", cbor2.dumps({1: "ES384"})),
        "null": ("The algorithm is null.", cbor2.dumps({1: None})),
        "no-algorithm": ("The header is an empty map.", b"\xa0"),
        "empty": ("The header is empty.", b""),
        "array": ("The header is an array.", cbor2.dumps([1, -35])),
    }
    header = partial(Case, "cose-algorithm")
    confusion = ("AlgorithmConfusion",)
    for name, (text, protected) in headers.items():
        raw = signed(payload, protected=protected)
        yield header(name, text, raw, flags=confusion, source="AWS 2")
    text = "The header marks an unknown parameter as critical."
    raw = signed(payload, protected=cbor2.dumps({1: -35, 2: [99], 99: 1}))
    yield header("critical", text, raw, flags=confusion, source=crit)
    raw = signed(payload, protected=b"\xa2\x01\x38\x22\x01\x26")
    text = "The header has the algorithm twice."
    yield header("twice", text, raw, flags=("DuplicateKey",), source=crit)
    raw = signed(payload, protected=ES384_PROTECTED + b"\0")
    text = "A byte follows the header's map."
    yield header("trailing", text, raw, flags=("TrailingBytes",), source=SEQUENCE_OF_TWO)
    for name, protected in {
        "long-value": b"\xa1\x01\x39\x00\x22",
        "long-key": b"\xa1\x18\x01\x38\x22",
        "indefinite": b"\xbf\x01\x38\x22\xff",
    }.items():
        text = "{1: -35}, in a longer encoding than the shortest."
        raw = signed(payload, protected=protected)
        yield Case("cose-algorithm", name, text, raw, "acceptable", ("NonCanonical",))
    text = "A key identifier, which is signed, is beside the algorithm."
    raw = signed(payload, protected=cbor2.dumps({1: -35, 4: b"kid"}))
    yield Case("cose-algorithm", "kid", text, raw, "acceptable", ("StricterThanAws",))
    for name, value in {"map": {1: -35}, "text-string": "text", "no-header": None}.items():
        text = f"The protected header is no byte string ({name})."
        yield Case("cose-algorithm", name, text, message(protected=value), source="AWS 2")
    unprotected: Mapping[str, tuple[object, Verdict]] = {
        "algorithm": ({1: -35}, "invalid"),
        "other-algorithm": ({1: -7}, "invalid"),
        "null": (None, "invalid"),
        "array": ([], "invalid"),
        "bytes": (b"", "invalid"),
        "kid": ({4: b"kid"}, "acceptable"),
        "unknown": ({-70000: 1}, "acceptable"),
    }
    for name, (unsigned, verdict) in unprotected.items():
        text = f"The unprotected header, which nobody signs, is not an empty map ({name})."
        flags_ = ("Forgery",) if verdict == "invalid" else ("StricterThanAws",)
        yield Case("cose-unprotected", name, text, message(unprotected=unsigned), verdict, flags_)
    for name, item in {"detached": None, "empty": b"", "map": fields(), "text": "text"}.items():
        text = f"The payload is no byte string with content ({name})."
        yield Case("cose-payload", name, text, message(payload=item))
    for size in (16384, 16385):
        bare = len(encode_payload(fields(padding=bytes(1000))))
        raw = signed(encode_payload(fields(padding=bytes(1000 + size - bare))))
        text = f"The payload has {size} bytes; the limit is 16384."
        limit: Verdict = "invalid" if size > 16384 else "acceptable"
        yield Case("cose-payload", f"{size}-bytes", text, raw, limit)
    signature = cbor2.loads(document())[3]
    signatures = {
        "empty": b"",
        "64": signature[:64],
        "95": signature[:95],
        "97": signature + b"\0",
        "98": b"\0" + signature[:48] + b"\0" + signature[48:],
        "132": bytes(132),
        "192": signature * 2,
        "null": None,
        "text": "x" * 96,
        "array": [signature],
    }
    for name, item in signatures.items():
        text = f"The signature is not 96 bytes ({name})."
        raw = message(signature=item)
        yield Case("cose-signature", name, text, raw, source="AWS 5; RFC 9053 section 2.1")
    chunks = b"\x5f\x58\x30" + signature[:48] + b"\x58\x30" + signature[48:] + b"\xff"
    raw = document()[: -len(signature) - 2] + chunks
    text = "The signature is a byte string of two chunks."
    yield Case("cose-signature", "chunks", text, raw, "acceptable", ("NonCanonical",))


def payload_cbor() -> Iterator[Case]:
    """Yield signed payloads that are not one map with text keys."""
    payload, flag = encode_payload(fields()), ("TrailingBytes",)
    bad = {
        "trailing-zero": (payload + b"\0", flag, SEQUENCE_OF_TWO),
        "trailing-map": (payload + payload, flag, SEQUENCE_OF_TWO),
        "trailing-break": (payload + b"\xff", flag, SEQUENCE_OF_TWO),
        "no-break": (payload[:-1], (), f"{CBOR} section 3.2"),
        "array": (cbor2.dumps([fields()]), (), "AWS 1"),
        "array-of-pairs": (cbor2.dumps([list(pair) for pair in fields().items()]), (), "AWS 1"),
        "bytes": (cbor2.dumps(payload), (), "AWS 1"),
        "odd-map": (payload[:-1] + b"\x61x\xff", (), f"{CBOR} section 3.2.2"),
        "bad-utf-8": (payload[:-1] + b"\x62\xc3\x28\x00\xff", (), f"{CBOR} section 3.1"),
        "deep": (payload[:-1] + b"\x61x" + b"\x81" * 5000 + b"\0\xff", ("ResourceUse",), CBOR),
        "scalar": (b"\x00", (), "AWS 1"),
    }
    for name, (raw, flags, source) in bad.items():
        text = f"The signed payload is not one CBOR map ({name})."
        yield Case("payload-cbor", name, text, signed(raw), flags=flags, source=source)
    odd = {
        "integer-key": (encode_payload({**fields(), 1: 2}), "StricterThanAws"),  # type: ignore[dict-item]
        "tagged": (b"\xd9\xd9\xf7" + payload, "StricterThanAws"),
        "unknown-key": (encode_payload(fields(added_by_aws=[{"at": 1}])), "StricterThanAws"),
        "sorted-keys": (encode_payload(dict(sorted(fields().items()))), "NonCanonical"),
        "long-key-length": (payload.replace(b"\x65nonce", b"\x78\x05nonce"), "NonCanonical"),
        "chunked-key": (payload.replace(b"\x65nonce", b"\x7f\x62no\x63nce\xff"), "NonCanonical"),
    }
    for name, (raw, flag_name) in odd.items():
        text = f"The payload's map is of an unusual form ({name})."
        yield Case("payload-cbor", name, text, signed(raw), "acceptable", (flag_name,))


def duplicate_keys() -> Iterator[Case]:
    """Yield payloads with a key twice, first or last value good, and encoded alike or not."""
    payload, values = encode_payload(fields()), fields()
    others = {
        "module_id": "i-0-enc0",
        "digest": "SHA256",
        "timestamp": SIGNED_MS + 1,
        "pcrs": {0: b"\1" * 48},
        "certificate": b"\x30\0",
        "cabundle": [b"\x30\0"],
        "public_key": b"k",
        "user_data": b"other",
        "nonce": b"other",
    }
    for name, other in others.items():
        pair = cbor2.dumps(name) + cbor2.dumps(other)
        for place, raw in (
            ("first", payload[:1] + pair + payload[1:]),
            ("last", payload[:-1] + pair + b"\xff"),
        ):
            text = f"{name} comes twice; the {place} value is another."
            yield _twice("payload-cbor", f"{name}-{place}", text, raw)
    same = payload[:-1] + cbor2.dumps("nonce") + cbor2.dumps(values["nonce"]) + b"\xff"
    yield _twice("payload-cbor", "same-value", "nonce comes twice with the same value.", same)
    longer = payload[:-1] + b"\x78\x05nonce" + cbor2.dumps(b"other") + b"\xff"
    yield _twice("payload-cbor", "longer-key", "nonce comes twice, in two encodings.", longer)
    before, _, after = payload.partition(b"\x64pcrs\xb0")
    zero = b"\x00\x58\x30" + bytes(48)
    for name, pcrs in {
        "pcr0-first": zero + after,
        "pcr0-last": after[: 16 * 51] + zero + after[16 * 51 :],
        "pcr0-longer-key": after[: 16 * 51] + b"\x18" + zero + after[16 * 51 :],
    }.items():
        raw = before + b"\x64pcrs\xb1" + pcrs
        yield _twice("payload-cbor", name, "PCR0 comes twice; one value is zero.", raw)


def _twice(rule: str, name: str, comment: str, payload: bytes) -> Case:
    return Case(
        rule, f"twice-{name}", comment, signed(payload), flags=("DuplicateKey",), source=UNIQUE_KEYS
    )


def mandatory_fields() -> Iterator[Case]:
    """Yield documents without what every document has."""
    for name in MANDATORY:
        yield Case("mandatory-fields", f"no-{name}", f"{name} is missing.", without(name))
        raw = document(**{name: None})
        yield Case("mandatory-fields", f"null-{name}", f"{name} is null.", raw)
    tpm = without("pcrs", nitrotpm_pcrs=dict.fromkeys(range(24), b"\1" * 48))
    text = "A NitroTPM document of an EC2 instance, under the same root: it has no pcrs."
    yield Case("nitro-tpm", "nothing-expected", text, tpm, flags=("MissingPcr",))
    yield Case("nitro-tpm", "pcr0-expected", text, tpm, flags=("MissingPcr",), pcrs={0: PCRS[0]})


def scalar_fields() -> Iterator[Case]:
    """Yield module ids, digests and times of the wrong type or value."""
    wrong: Mapping[str, Mapping[str, object]] = {
        "module-id": {"empty": "", "bytes": MODULE_ID.encode(), "integer": 1, "array": [MODULE_ID]},
        "digest": {
            "sha256": "SHA256",
            "sha512": "SHA512",
            "lower-case": "sha384",
            "empty": "",
            "nul": "SHA384\0",
            "bytes": b"SHA384",
            "array": ["SHA384"],
            "integer": 384,
        },
        "timestamp": {
            "zero": 0,
            "negative": -1,
            "float": float(SIGNED_MS),
            "text": str(SIGNED_MS),
            "true": True,
            "2-64": 2**64,
            "array": [SIGNED_MS],
            "bytes": b"\1",
        },
    }
    for rule, values in wrong.items():
        field = rule.replace("-", "_")
        for name, value in values.items():
            yield Case(rule, name, f"{field} is wrong ({name}).", document(**{field: value}))
    own: Mapping[str, Mapping[str, object]] = {
        "module-id": {"257-characters": MODULE_ID + "0" * 218, "newline": MODULE_ID + "\n"},
        "timestamp": {
            "seconds": SIGNED_MS // 1000,
            "year-10000": 253_402_300_800_000,
            "2-63": 2**63,
            "before-leaf": SIGNED_MS - 7_200_000,
            "after-leaf": SIGNED_MS + 14_400_000,
        },
    }
    for rule, values in own.items():
        field = rule.replace("-", "_")
        for name, value in values.items():
            text = f"{field} is odd ({name}), which AWS's process does not refuse."
            raw = document(**{field: value})
            yield Case(rule, name, text, raw, "acceptable", ("StricterThanAws",))


def pcr_maps() -> Iterator[Case]:
    """Yield maps of PCRs that AWS's process refuses, and those of other digests' lengths."""
    wrong: Mapping[str, object] = {
        "empty": {},
        "array": [PCRS[0]],
        "bytes": PCRS[0],
        "33-pcrs": dict.fromkeys(range(33), b"\1" * 48),
        "index-32": PCRS | {32: bytes(48)},
        "index-negative": PCRS | {-1: bytes(48)},
        "index-256": PCRS | {256: b"\1" * 48},
        "index-2-32": PCRS | {2**32: b"\1" * 48},
        "index-text": {"0": PCRS[0]},
        "index-bytes": {b"\0": PCRS[0]},
        "index-float": {0.0: PCRS[0]},
        "index-false": {False: PCRS[0]},
        "47-bytes": PCRS | {0: PCRS[0][:47]},
        "49-bytes": PCRS | {0: PCRS[0] + b"\0"},
        "0-bytes": PCRS | {0: b""},
        "hexadecimal": PCRS | {0: PCRS[0].hex()},
        "null": PCRS | {0: None},
        "numbers": PCRS | {0: list(PCRS[0])},
    }
    for name, value in wrong.items():
        yield Case("pcrs", name, f"pcrs is wrong ({name}).", document(pcrs=value))
    for size in (32, 64):
        text = f"PCR0 has {size} bytes, which AWS's text allows and SHA-384 does not make."
        raw = document(pcrs=PCRS | {0: b"\1" * size})
        yield Case("pcrs", f"{size}-bytes", text, raw, "acceptable", ("StricterThanAws",))
    text = "Only PCR0 to PCR4 are there."
    few = {index: PCRS[index] for index in range(5)}
    yield Case("pcrs", "5-pcrs", text, document(pcrs=few), "acceptable", ("StricterThanAws",))


def certificate_fields() -> Iterator[Case]:
    """Yield leaf certificates and bundles of the wrong type or length, or that do not parse."""
    leaf, bundle = good_chain().certificate, list(good_chain().cabundle)
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(leaf)
    pem += b"-----END CERTIFICATE-----\n"
    wrong: Mapping[str, object] = {
        "empty": b"",
        "text": leaf.hex(),
        "array": [leaf],
        "garbage": b"\x03\x04",
        "trailing": leaf + b"\0",
        "cut": leaf[:-1],
        "pem": pem,
        "1025-bytes": leaf.ljust(1025, b"\0"),
    }
    for name, value in wrong.items():
        flags = ("TrailingBytes",) if name in {"trailing", "1025-bytes"} else ()
        text = f"certificate is wrong ({name})."
        yield Case("certificate", name, text, document(certificate=value), flags=flags)
    bundles: Mapping[str, object] = {
        "empty": [],
        "bytes": bundle[0],
        "map": dict(enumerate(bundle)),
        "empty-item": [*bundle, b""],
        "text-item": [*bundle, "text"],
        "null-item": [*bundle, None],
        "nested": [bundle],
        "garbage-item": [*bundle, b"\x30\x00"],
        "1025-bytes-item": [*bundle, bytes(1025)],
        "trailing-item": [*bundle[:3], bundle[3] + b"\0"],
        "one-string": [b"".join(bundle)],
    }
    for name, value in bundles.items():
        flags = ("TrailingBytes",) if name == "trailing-item" else ()
        text = f"cabundle is wrong ({name})."
        yield Case("cabundle", name, text, document(cabundle=value), flags=flags)


def optional_fields() -> Iterator[Case]:
    """Yield optional fields of the wrong type or length."""
    wrong: Mapping[str, object] = {
        "4051-bytes": bytes(4051),
        "text": "text",
        "integer": 0,
        "false": False,
        "array": [],
    }
    for field in ("public_key", "user_data", "nonce"):
        for name, value in wrong.items():
            text, raw = f"{field} is wrong ({name}).", document(**{field: value})
            yield Case("optional-fields", f"{field}-{name}", text, raw)
    text = "public_key is empty, as in one genuine document; AWS's text demands a byte."
    raw = document(public_key=b"")
    flags = ("GenuineForm", "LiteralText")
    long = "nonce is longer than AWS's CDDL says. Nitro has issued one of this length."
    raw_nonce = document(nonce=bytes(1025))
    yield Case("optional-fields", "1025-bytes-nonce", long, raw_nonce, "acceptable", flags)
    yield Case("optional-fields", "empty-public-key", text, raw, "acceptable", flags)
