"""Certificates in AWS's form, read as the library reads them, and in no other form at all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.attestation import packaged_root, parse_attestation
from foobar_instance.attestation.certificate import UnfamiliarCertificate, _element, cut, read
from tests.foobar_instance.attestation.forge import MODULE_ID, chain
from tests.foobar_instance.attestation.issued import (
    COMMON_NAME,
    CONSTRAINTS,
    COUNTRY,
    CRITICAL,
    ECDSA_SHA256,
    INTEGER,
    KEY_ID,
    OCTETS,
    PRINTABLE,
    SEQUENCE,
    SET,
    SIGNS_CERTIFICATES,
    SIGNS_DOCUMENTS,
    TEXT,
    UNIT,
    USAGE,
    Line,
    Written,
    certificate,
    constraints,
    element,
    extension,
    line,
    named,
    spki,
)
from tests.vectors import vectors


@cache
def good() -> Line:
    return line()


def upper() -> Written:
    """One of its authorities, which is signed."""
    return replace(good().written[1], issuer=good().written[0].subject)


def leaf() -> Written:
    return replace(good().written[3], issuer=good().written[2].subject)


def same_as_the_library_s(der: bytes) -> None:
    signed, signature = cut(der)
    fields, theirs = read(signed), x509.load_der_x509_certificate(der)
    assert (signed, signature) == (theirs.tbs_certificate_bytes, theirs.signature)
    assert fields.issuer == theirs.issuer.public_bytes()
    assert fields.subject == theirs.subject.public_bytes()
    (name,) = theirs.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert fields.common_name.decode() == name.value
    assert fields.not_before == theirs.not_valid_before_utc
    assert fields.not_after == theirs.not_valid_after_utc
    key = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert fields.key == key
    assert len(fields.extensions) == len(theirs.extensions)
    found = theirs.extensions.get_extension_for_class(x509.BasicConstraints).value
    if found.ca:
        assert fields.path_length() == found.path_length
    else:
        fields.check_leaf()


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov"])
def test_the_packaged_roots(partition: str) -> None:
    same_as_the_library_s(packaged_root(partition).public_bytes(Encoding.DER))


def test_emulated_certificates() -> None:
    for der in (*chain().cabundle, chain().certificate, *good().ders):
        same_as_the_library_s(der)


def test_genuine_certificates() -> None:
    ders = set()
    for entry in vectors("attestation"):
        if entry.text("kind") == "enclave":
            attestation = parse_attestation(entry.read())
            ders |= {*attestation.cabundle, attestation.certificate}
    assert len(ders) > 100
    for der in ders:
        same_as_the_library_s(der)


ASCII = "".join(map(chr, range(0x80)))
FAMILIAR: dict[str, dict[str, object]] = {
    "the year 1999": {"not_before": b"\x17\x0d990101000000Z"},
    "the year 1950": {"not_before": b"\x17\x0d500101000000Z"},
    "the year 2049": {"not_after": b"\x17\x0d491231235959Z"},
    "the year 2050": {"not_after": b"\x18\x0f20500101000000Z"},
    "the year 9999": {"not_after": b"\x18\x0f99991231235959Z"},
    "the serial number 1": {"serial": element(INTEGER, b"\1")},
    "a serial number of 20 bytes": {"serial": element(INTEGER, b"\x7f" * 20)},
    "one that needs a zero before it": {"serial": element(INTEGER, b"\0" + b"\x80" * 20)},
    "a country": {
        "subject": element(
            SEQUENCE, named((COUNTRY, "US"), tag=PRINTABLE)[2:], named((COMMON_NAME, "x"))[2:]
        )
    },
    "a country at the end": {
        "subject": element(
            SEQUENCE, named((COMMON_NAME, "x"))[2:], named((COUNTRY, "US"), tag=PRINTABLE)[2:]
        )
    },
    "a text of no bytes": {"subject": named((UNIT, ""), (COMMON_NAME, "x"))},
    "a text of 118 bytes": {"subject": named((UNIT, "y" * 118), (COMMON_NAME, "x"))},
    "all of ASCII": {"subject": named((UNIT, ASCII[:64]), (COMMON_NAME, ASCII[64:]))},
    "a name of 127 bytes": {"subject": named((UNIT, "x" * 52), (COMMON_NAME, "x" * 53))},
    "a name of 128 bytes": {"subject": named((UNIT, "x" * 53), (COMMON_NAME, "x" * 53))},
    "a name of 300 bytes": {"subject": named(*[(UNIT, "x" * 60)] * 4, (COMMON_NAME, "x"))},
    "a path length of 127": {"extensions": (constraints(127), extension(USAGE, "03020186"))},
    "a subject key identifier": {
        "extensions": (
            constraints(1),
            extension(USAGE, SIGNS_CERTIFICATES),
            extension(KEY_ID, "040101", critical=False),
        )
    },
}


@pytest.mark.parametrize("name", FAMILIAR)
def test_what_may_vary(name: str) -> None:
    same_as_the_library_s(replace(upper(), **FAMILIAR[name]).by(good().keys[0]))  # type: ignore[arg-type]


CA = extension(USAGE, SIGNS_CERTIFICATES)
UNFAMILIAR: dict[str, dict[str, object]] = {
    "version 2": {"version": bytes.fromhex("a003020101")},
    "version 1": {"version": b""},
    "no serial number": {"serial": b""},
    "an empty serial number": {"serial": element(INTEGER)},
    "the serial number 0": {"serial": element(INTEGER, b"\0")},
    "a negative serial number": {"serial": element(INTEGER, b"\x80\0")},
    "a serial number with a zero too many": {"serial": element(INTEGER, b"\0\x7f")},
    "a serial number of 22 bytes": {"serial": element(INTEGER, b"\x7f" * 22)},
    "a serial number that is none": {"serial": element(OCTETS, b"\1")},
    "another algorithm": {"algorithm": ECDSA_SHA256},
    "a longer time than need be": {"not_after": b"\x18\x0f20491231235959Z"},
    "a fraction of a second": {"not_after": b"\x18\x1120500101000000.1Z"},
    "a third time": {"not_after": b"\x17\x0d270101000000Z\x17\x0d270101000000Z"},
    "a single time": {"not_after": b""},
    "a time without seconds": {"not_after": b"\x17\x0b2701010000Z"},
    "a time of another zone": {"not_before": b"\x17\x0d260101000000A"},
    "a time that is no number": {"not_before": b"\x17\x0d26010100000xZ"},
    "a time with a sign": {"not_before": b"\x17\x0d26010100000+Z"},
    "a month 13": {"not_before": b"\x17\x0d261301000000Z"},
    "an hour 24": {"not_before": b"\x17\x0d261231240000Z"},
    "a leap second": {"not_before": b"\x17\x0d261231235960Z"},
    "a week": {"not_before": b"\x17\x0d26W011000000Z"},
    "neither kind of time": {"not_after": b"\x19\x0f20500101000000Z"},
    "a key on another curve": {
        "key": spki(good().keys[1]).replace(bytes.fromhex("2b81040022"), b"\x2b\x81\x04\0\x0a")
    },
    "a compressed key": {
        "key": bytes.fromhex("3046301006072a8648ce3d020106052b8104002203320002") + bytes(48)
    },
    "a key with a byte more": {"key": spki(good().keys[1]) + b"\0"},
    "a key cut off": {"key": spki(good().keys[1])[:-1]},
    "no extensions": {"extensions": ()},
    "bytes after the extensions": {"after_extensions": b"\x05\x00"},
    "an extension twice": {"extensions": (constraints(1), CA, CA)},
    "an extension that is unknown": {
        "extensions": (constraints(1), CA, extension(bytes.fromhex("0603551d1e"), "3000"))
    },
    "an unknown one that is not critical": {
        "extensions": (
            constraints(1),
            CA,
            extension(bytes.fromhex("0603551d20"), "3000", critical=False),
        )
    },
    "a key identifier that is critical": {
        "extensions": (constraints(1), CA, extension(KEY_ID, "040101"))
    },
    "a criticality of 1": {
        "extensions": (element(0x30, CONSTRAINTS, b"\1\1\1", element(4, b"\x30\3\1\1\xff")), CA)
    },
    "bytes after an extension's value": {
        "extensions": (
            element(0x30, CONSTRAINTS, CRITICAL, element(4, b"\x30\3\1\1\xff"), b"\5\0"),
            CA,
        )
    },
    "an extension that is no sequence": {"extensions": (b"\x31" + constraints(1)[1:], CA)},
}


@pytest.mark.parametrize("name", UNFAMILIAR)
def test_a_certificate_of_another_form_is_not_read(name: str) -> None:
    der = replace(upper(), **UNFAMILIAR[name]).by(good().keys[0])  # type: ignore[arg-type]
    signed, _ = cut(der)
    with pytest.raises(UnfamiliarCertificate):
        read(signed).path_length()


PLAIN = extension(CONSTRAINTS, "3000")
NO_AUTHORITIES = {
    "a leaf's": (PLAIN, CA),
    "false in so many words": (extension(CONSTRAINTS, "3003010100"), CA),
    "not critical": (extension(CONSTRAINTS, "30030101ff", critical=False), CA),
    "empty": (extension(CONSTRAINTS, ""), CA),
    "missing": (CA,),
    "a path length of two bytes": (extension(CONSTRAINTS, "30070101ff02020080"), CA),
    "a negative path length": (constraints(0x80), CA),
    "no usage": (constraints(1),),
    "an empty usage": (constraints(1), extension(USAGE, "")),
    "another usage": (constraints(1), extension(USAGE, SIGNS_DOCUMENTS)),
    "a usage that is not critical": (
        constraints(1),
        extension(USAGE, SIGNS_CERTIFICATES, critical=False),
    ),
    "a usage with bits that are unused": (constraints(1), extension(USAGE, "03020304")),
    "a usage of 8 unused bits": (constraints(1), extension(USAGE, "03020804")),
    "a usage of two bytes": (constraints(1), extension(USAGE, "0303070480")),
    "a usage of no bits": (constraints(1), extension(USAGE, "030100")),
}


@pytest.mark.parametrize("name", NO_AUTHORITIES)
def test_what_is_no_authority(name: str) -> None:
    fields = read(replace(upper(), extensions=NO_AUTHORITIES[name]).signed())
    with pytest.raises(UnfamiliarCertificate):
        fields.path_length()


SIGNER = extension(USAGE, SIGNS_DOCUMENTS)
NO_LEAVES = {
    "an authority": (constraints(None), SIGNER),
    "not critical": (extension(CONSTRAINTS, "3000", critical=False), SIGNER),
    "missing": (SIGNER,),
    "no usage": (PLAIN,),
    "another usage": (PLAIN, CA),
}


@pytest.mark.parametrize("name", NO_LEAVES)
def test_what_is_no_leaf(name: str) -> None:
    fields = read(replace(leaf(), extensions=NO_LEAVES[name]).signed())
    with pytest.raises(UnfamiliarCertificate):
        fields.check_leaf()


@pytest.mark.parametrize("critical", [True, False])
def test_a_leaf_s_usage_may_be_critical(critical: bool) -> None:
    usage = extension(USAGE, SIGNS_DOCUMENTS, critical=critical)
    read(replace(leaf(), extensions=(PLAIN, usage)).signed()).check_leaf()


NAMELESS = {
    "text of another kind": named((COMMON_NAME, MODULE_ID), tag=0x16),
    "another attribute's text of another kind": element(
        SEQUENCE,
        element(SET, element(SEQUENCE, UNIT, element(0x16, b"AWS"))),
        named((COMMON_NAME, MODULE_ID))[2:],
    ),
    "text that is not UTF-8": named((COMMON_NAME, MODULE_ID)).replace(b"i-", b"\xff-"),
    "text that is not ASCII": named((COMMON_NAME, f"{MODULE_ID}é")),
    "a text of 119 bytes": named((UNIT, "x" * 119), (COMMON_NAME, MODULE_ID)),
    "another country": element(
        SEQUENCE,
        named((COUNTRY, "GB"), tag=PRINTABLE)[2:],
        named((COMMON_NAME, MODULE_ID))[2:],
    ),
    "an attribute of another standard": named(
        (bytes.fromhex("0603550503"), "x"), (COMMON_NAME, MODULE_ID)
    ),
    "an attribute whose identifier goes on": named(
        (bytes.fromhex("0603550483"), "x"), (COMMON_NAME, MODULE_ID)
    ),
    "no common name": named((UNIT, "AWS")),
    "no name": named(),
    "two": named((COMMON_NAME, MODULE_ID), (COMMON_NAME, MODULE_ID)),
    "inside another attribute": named((UNIT, (COMMON_NAME + element(TEXT, b"x")).decode())),
    "beside another attribute": element(
        SEQUENCE,
        element(SET, *(element(SEQUENCE, oid, element(TEXT, b"x")) for oid in (UNIT, COMMON_NAME))),
    ),
    "bytes after it": element(
        SEQUENCE, element(SET, element(SEQUENCE, COMMON_NAME, element(TEXT, b"x"), b"\5\0"))
    ),
    "text after it": element(
        SEQUENCE, element(SET, element(SEQUENCE, COMMON_NAME, element(TEXT, b"x"), b"AB"))
    ),
    "text after its attribute": element(
        SEQUENCE, element(SET, element(SEQUENCE, COMMON_NAME, element(TEXT, b"x")), b"AB")
    ),
    "text that goes on after it": element(SEQUENCE, named((COMMON_NAME, MODULE_ID))[2:-1]),
    "no set": element(SEQUENCE, element(SEQUENCE, element(SEQUENCE, COMMON_NAME, b"\x0c\0"))),
    "no sequence": element(SEQUENCE, element(SET, element(SET, COMMON_NAME, b"\x0c\0"))),
}


@pytest.mark.parametrize("name", NAMELESS)
def test_a_name_of_another_form(name: str) -> None:
    with pytest.raises(UnfamiliarCertificate):
        read(replace(leaf(), subject=NAMELESS[name]).signed())


@pytest.mark.parametrize(
    "subject",
    [
        named((COMMON_NAME, "x"), (UNIT, "AWS")),
        named((UNIT, "AWS"), (COMMON_NAME, "x")),
        named((UNIT, "AWS"), (COMMON_NAME, "x"), (UNIT, "y")),
    ],
)
def test_a_common_name_may_be_anywhere(subject: bytes) -> None:
    assert read(replace(leaf(), subject=subject).signed()).common_name == b"x"


def frames() -> dict[str, bytes]:
    """The good certificate in frames that its issuer has not signed."""
    der = leaf().by(good().keys[2])
    signed, signature = cut(der)
    long_form = b"\x30\x83\x00" + der[2:]
    shorter = (len(der) - 5).to_bytes(2, "big")
    return {
        "nothing": b"",
        "a byte": der[:1],
        "cut off": der[:-1],
        "a byte more": der + b"\0",
        "a byte more inside": element(0x30, der[4:], b"\0"),
        "a byte after what its length says": der[:2] + shorter + der[4:],
        "no sequence": b"\x31" + der[1:],
        "another length": long_form,
        "an indefinite length": b"\x30\x80" + der[4:] + b"\0\0",
        "a longer form": b"\x30\x82\x00\x10" + der[4:20],
        "what is signed is no sequence": element(0x30, b"\x31" + signed[1:], der[-120:]),
        "another algorithm": certificate(signed, signature, ECDSA_SHA256),
        "unused bits": certificate(signed, signature, unused=1),
        "no bit string": der.replace(b"\x03" + bytes([len(signature) + 1, 0]), b"\x04\x01\x00"),
        "an empty bit string": element(0x30, signed, der[4 + len(signed) :][:12], b"\x03\x00"),
    }


@pytest.mark.parametrize("name", frames())
def test_a_frame_of_another_form_is_not_cut(name: str) -> None:
    with pytest.raises(UnfamiliarCertificate):
        cut(frames()[name])


def test_lengths_inside_that_say_less_or_more() -> None:
    signed = leaf().signed()
    extensions = signed.rindex(b"\xa3")
    for where in (3, extensions + 1, extensions + 3):
        read(signed)
        for other in (signed[where] - 1, signed[where] + 1):
            with pytest.raises(UnfamiliarCertificate):
                read(signed[:where] + bytes([other]) + signed[where + 1 :])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535])
def test_lengths_of_one_to_three_bytes(size: int) -> None:
    der = element(0x30, bytes(size))
    assert _element(b"xx" + der + b"yy", 2, 0x30) == (len(der) - size + 2, len(der) + 2)
    with pytest.raises(UnfamiliarCertificate):
        _element(b"xx" + der[:-1], 2, 0x30)


@pytest.mark.parametrize(
    ("head", "size"),
    [("8100", 0), ("817f", 127), ("820080", 128), ("8200ff", 255), ("83010000", 65536), ("80", 0)],
)
def test_lengths_in_another_form_than_the_shortest(head: str, size: int) -> None:
    with pytest.raises(UnfamiliarCertificate):
        _element(b"\x30" + bytes.fromhex(head) + bytes(size), 0, 0x30)


@given(st.binary(max_size=200))
def test_any_bytes(der: bytes) -> None:
    for step in (cut, read):
        with pytest.raises(UnfamiliarCertificate):
            step(der)


@given(st.data())
def test_an_altered_certificate_is_unfamiliar_or_read_as_the_library_reads_it(
    data: st.DataObject,
) -> None:
    der = data.draw(st.sampled_from([*chain().cabundle[1:], chain().certificate]))
    position = data.draw(st.integers(0, len(der) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=3))
    altered = (der[:position] + piece + der[position + len(piece) :])[: len(der)]
    try:
        signed, _ = cut(altered)
        fields = read(signed)
        fields.check_leaf()
    except UnfamiliarCertificate:
        return
    try:
        theirs = x509.load_der_x509_certificate(altered)
        _ = theirs.subject, theirs.issuer, theirs.extensions, theirs.public_key()
    except Exception:  # noqa: BLE001 - what the library refuses, an issuer would not have signed
        return
    same_as_the_library_s(altered)
