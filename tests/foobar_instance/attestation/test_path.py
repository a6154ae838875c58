"""The quick way: what it accepts the library accepts, and what it leaves the library judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    Verifier,
    packaged_root,
    parse_attestation,
    verify_attestation,
)
from foobar_instance.attestation import path as path_module
from foobar_instance.attestation._chain import ChainVerifier
from foobar_instance.attestation.certificate import UnfamiliarCertificate, cut
from foobar_instance.attestation.path import FamiliarPaths, TrustedChain
from tests.foobar_instance.attestation import test_certificate
from tests.foobar_instance.attestation.forge import MODULE_ID, NOW, chain, document, kept, pki, root
from tests.foobar_instance.attestation.issued import (
    COMMON_NAME,
    CONSTRAINTS,
    SIGNS_CERTIFICATES,
    SIGNS_DOCUMENTS,
    UNIT,
    USAGE,
    Line,
    authority,
    certificate,
    constraints,
    extension,
    line,
    named,
    p384,
    signed_by,
    spki,
)
from tests.vectors import Vector, vectors

NAME = f"{MODULE_ID}.".encode()


@cache
def good() -> Line:
    return line()


def quick(ders: tuple[bytes, ...], name: bytes = NAME) -> TrustedChain:
    """The quick way from the first of these certificates to the last."""
    anchor, *authorities, leaf = ders
    return FamiliarPaths(anchor).chain(tuple(authorities), leaf, name)


def by_the_library(given: Line) -> Attestation:
    """A document under the line, as the first that a verifier sees."""
    anchor = x509.load_der_x509_certificate(given.ders[0])
    return verify_attestation(document(given.chain()), root=anchor)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[x509.Certificate]:
    """The leaves of the paths that the library was asked to validate."""
    asked: list[x509.Certificate] = []
    check_path = ChainVerifier._check_path

    def noted(self: ChainVerifier, leaf: x509.Certificate, *rest: object) -> None:
        asked.append(leaf)
        check_path(self, leaf, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ChainVerifier, "_check_path", noted)
    return asked


def test_the_library_validates_the_first_path_and_no_familiar_one_after_it(
    library: list[x509.Certificate],
) -> None:
    verifier = Verifier(root())
    verifier.verify(document())
    assert len(library) == 1
    for _ in range(3):
        verifier.verify(document(pki().issue(MODULE_ID, now=NOW)))
    assert len(library) == 1


def enclaves() -> list[Vector]:
    return [entry for entry in vectors("attestation") if entry.text("kind") == "enclave"]


def test_every_genuine_path_is_familiar_within_its_window_only(
    library: list[x509.Certificate],
) -> None:
    verifier = kept(packaged_root())
    asked = len(library)
    for entry in enclaves():
        raw = entry.read()
        begin, end = (entry.moment(f"chain_valid_{name}") for name in ("from", "until"))
        for at in (begin, end, None):
            verifier.verify(raw, at=at, allow_debug=True)
        given = parse_attestation(raw)
        found = quick((*given.cabundle, given.certificate), given.module_id.encode())
        assert (found.not_before, found.not_after) == (begin, end)
    assert len(library) == asked


def test_the_narrowest_window_counts_wherever_it_is() -> None:
    for which in range(4):
        given = good().but(
            which, not_before=b"\x17\x0d260201000000Z", not_after=b"\x17\x0d260601000000Z"
        )
        found = quick(given.ders)
        assert found.not_before == datetime(2026, 2, 1, tzinfo=UTC)
        assert found.not_after == datetime(2026, 6, 1, tzinfo=UTC)


def test_a_remembered_authority_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def noted(der: bytes) -> tuple[bytes, bytes]:
        seen.append(der)
        return cut(der)

    monkeypatch.setattr(path_module, "cut", noted)
    anchor, upper, lower, leaf = good().ders
    paths = FamiliarPaths(anchor)
    for _ in range(2):
        paths.chain((upper, lower), leaf, NAME)
    assert seen == [anchor, upper, lower, leaf, leaf]


def test_an_authority_is_remembered_under_its_issuer() -> None:
    anchor, upper, lower, leaf = good().ders
    paths = FamiliarPaths(anchor)
    paths.chain((upper, lower), leaf, NAME)
    for order in ((lower,), (upper,), (lower, upper), (upper, upper, lower), ()):
        with pytest.raises(UnfamiliarCertificate):
            paths.chain(order, leaf, NAME)


def test_an_authority_that_failed_is_not_remembered() -> None:
    anchor, upper, lower, leaf = good().ders
    paths = FamiliarPaths(anchor)
    for _ in range(2):
        with pytest.raises(UnfamiliarCertificate):
            paths.chain((upper[:-1] + bytes([upper[-1] ^ 1]), lower), leaf, NAME)
    assert paths._authority.cache_info().currsize == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_module._REMEMBERED == 256
    monkeypatch.setattr(path_module, "_REMEMBERED", 3)
    paths = FamiliarPaths(chain().cabundle[0])
    for _ in range(3):
        given = pki().issue(MODULE_ID, now=NOW)
        paths.chain(given.cabundle[1:], given.certificate, NAME)
    assert paths._authority.cache_info().currsize == 3


def with_authorities(*path_lengths: int | None, root_length: int | None = None) -> Line:
    """A line with as many authorities, of these path lengths."""
    keys = tuple(p384() for _ in range(len(path_lengths) + 2))
    written = [
        authority(f"authority {number}", key, length)
        for number, (key, length) in enumerate(
            zip(keys, (root_length, *path_lengths), strict=False)
        )
    ]
    leaf = replace(good().written[-1], key=spki(keys[-1]))
    return Line((*written, leaf), keys)


@pytest.mark.parametrize(
    "given",
    [
        with_authorities(),
        with_authorities(None, None, None),
        with_authorities(2, 1, 0),
        with_authorities(127, 3, 3),
        with_authorities(2, None, 0),
        with_authorities(1, 1, root_length=2),
        with_authorities(None, 0, root_length=2),
        with_authorities(None, 5, None, root_length=None),
    ],
)
def test_path_lengths_that_hold(given: Line, library: list[x509.Certificate]) -> None:
    anchor, *_, leaf = (x509.load_der_x509_certificate(der) for der in given.ders)
    kept(anchor).verify(document(given.chain()))
    assert leaf not in library
    by_the_library(given)


@pytest.mark.parametrize(
    "given",
    [
        with_authorities(0, None),
        with_authorities(0, 0),
        with_authorities(1, 1, 1),
        with_authorities(1, None, None),
        with_authorities(None, 0, None),
        with_authorities(2, 0, 5),
        with_authorities(None, root_length=0),
        with_authorities(None, 5, root_length=1),
    ],
)
def test_path_lengths_that_do_not(given: Line) -> None:
    with pytest.raises(UnfamiliarCertificate):
        quick(given.ders)
    with pytest.raises(AttestationError, match="validation failed") as caught:
        by_the_library(given)
    assert caught.value.rule == "chain-path"


@pytest.mark.parametrize("names", ["ABA", "ABAC", "AR", "ARC", "ABABA", "AABC", "RA"])
@pytest.mark.parametrize("is_new", [False, True])
def test_names_that_come_again(names: str, is_new: bool) -> None:
    """Under the same keys, the library finds a shorter path than the bundle says."""
    keys: dict[str, ec.EllipticCurvePrivateKey] = {}
    given = [(name, p384() if is_new else keys.setdefault(name, p384())) for name in f"R{names}"]
    leaf, key = good().written[-1], good().keys[-1]
    written = (*(authority(name, key, None) for name, key in given), leaf)
    whole = Line(written, (*(key for _, key in given), key))
    with pytest.raises(UnfamiliarCertificate):
        quick(whole.ders)
    anchor, raw = x509.load_der_x509_certificate(whole.ders[0]), document(whole.chain())
    ours, theirs = (verdict(verifier, raw) for verifier in (kept(anchor), Verifier(anchor)))
    assert str(ours) == str(theirs)
    assert isinstance(theirs, AttestationError) is not is_new


def usage(which: str, *, critical: bool = True) -> tuple[bytes, ...]:
    return constraints(1), extension(USAGE, which, critical=critical)


def no_leaf(constraint: str, which: str, *, critical: bool = True) -> tuple[bytes, ...]:
    return extension(CONSTRAINTS, constraint, critical=critical), extension(USAGE, which)


BROKEN: dict[str, Callable[[], Line]] = {
    "an authority of another root": lambda: good().but(1, issuer=named((COMMON_NAME, "other"))),
    "a leaf of another authority": lambda: good().but(3, issuer=good().written[1].subject),
    "no issuer": lambda: good().but(1, issuer=named()),
    "an authority without a name": lambda: good().but(2, subject=named()),
    "an authority that may not sign": lambda: good().but(1, extensions=usage(SIGNS_DOCUMENTS)),
    "a usage that may be ignored": lambda: good().but(
        1, extensions=usage(SIGNS_CERTIFICATES, critical=False)
    ),
    "a leaf between": lambda: good().but(1, extensions=no_leaf("3000", SIGNS_CERTIFICATES)),
    "constraints that may be ignored": lambda: good().but(
        1, extensions=no_leaf("30030101ff", SIGNS_CERTIFICATES, critical=False)
    ),
    "a leaf that is an authority": lambda: good().but(
        3, extensions=no_leaf("30030101ff", SIGNS_DOCUMENTS)
    ),
    "a leaf that may not sign": lambda: good().but(
        3, extensions=no_leaf("3000", SIGNS_CERTIFICATES)
    ),
    "an unknown critical extension": lambda: good().but(
        1, extensions=(*usage(SIGNS_CERTIFICATES), extension(bytes.fromhex("0603551d1d"), "3000"))
    ),
    "a name constraint": lambda: good().but(
        1,
        extensions=(
            *usage(SIGNS_CERTIFICATES),
            # No directory name is permitted.
            extension(bytes.fromhex("0603551d1e"), "3006a0043002a400"),
        ),
    ),
    "another leaf's name": lambda: good().but(3, subject=named((COMMON_NAME, "i-0-enc0.aws"))),
    "the name of a longer id": lambda: good().but(3, subject=named((COMMON_NAME, f"{MODULE_ID}0"))),
    "an old authority": lambda: good().but(2, not_after=b"\x17\x0d260102000000Z"),
    "a leaf that is not yet valid": lambda: good().but(3, not_before=b"\x17\x0d260901000000Z"),
    "another key's signature": lambda: replace(good(), keys=(p384(), *good().keys[1:])),
    "an authority of version 1": lambda: good().but(1, version=b""),
    "unused bits": lambda: good().but(2, unused=1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_as_the_library_refuses_it(name: str) -> None:
    given = BROKEN[name]()
    anchor = x509.load_der_x509_certificate(good().ders[0])
    raw = document(replace(given.chain(), cabundle=(good().ders[0], *given.chain().cabundle[1:])))
    with pytest.raises(AttestationError) as theirs:
        verify_attestation(raw, root=anchor)
    with pytest.raises(AttestationError) as ours:
        kept(anchor).verify(raw)
    assert (ours.value.rule, str(ours.value)) == (theirs.value.rule, str(theirs.value))


POLICY = extension(bytes.fromhex("0603551d20"), "30053003060101", critical=False)
UNFAMILIAR: dict[str, Callable[[], Line]] = {
    "an authority of its issuer's name": lambda: good().but(
        1,
        subject=good().written[0].subject,
        extensions=(constraints(None), extension(USAGE, SIGNS_CERTIFICATES)),
    ),
    "a name that is written otherwise": lambda: good().but(
        3, subject=named((UNIT, "AWS"), (COMMON_NAME, f"{MODULE_ID}.us-east-1.aws"), tag=0x16)
    ),
    "an extension that may be ignored": lambda: good().but(
        1, extensions=(*usage(SIGNS_CERTIFICATES), POLICY)
    ),
}


@pytest.mark.parametrize("name", UNFAMILIAR)
def test_what_is_unfamiliar_is_for_the_library(name: str, library: list[x509.Certificate]) -> None:
    given = UNFAMILIAR[name]()
    anchor = x509.load_der_x509_certificate(given.ders[0])
    with pytest.raises(UnfamiliarCertificate):
        quick(given.ders)
    verifier = kept(anchor)
    asked = len(library)
    assert verifier.verify(document(given.chain())).module_id == MODULE_ID
    assert len(library) == asked + 1


def test_a_root_of_another_form_is_for_the_library(library: list[x509.Certificate]) -> None:
    extensions = (constraints(None), extension(USAGE, SIGNS_CERTIFICATES), POLICY)
    given = good().but(0, extensions=extensions)
    with pytest.raises(UnfamiliarCertificate):
        FamiliarPaths(given.ders[0])
    verifier = kept(x509.load_der_x509_certificate(given.ders[0]))
    asked = len(library)
    verifier.verify(document(given.chain()))
    assert len(library) == asked + 1


@pytest.mark.parametrize("issuer", [named(), named((COMMON_NAME, "other"))])
def test_a_root_of_another_issuer_is_for_the_library(issuer: bytes) -> None:
    with pytest.raises(UnfamiliarCertificate):
        FamiliarPaths(good().but(0, issuer=issuer).ders[0])


def test_the_root_in_a_bundle_is_compared_by_the_quick_way_too() -> None:
    _, upper, lower, _ = good().ders
    anchor = x509.load_der_x509_certificate(good().ders[0])
    for other in (chain().cabundle[0], upper):
        raw = document(replace(good().chain(), cabundle=(other, upper, lower)))
        with pytest.raises(AttestationError) as caught:
            kept(anchor).verify(raw)
        assert caught.value.rule == "chain-order"


def test_a_point_off_the_curve_is_no_key() -> None:
    off = good().written[2].key[:-1] + bytes([good().written[2].key[-1] ^ 1])
    with pytest.raises(UnfamiliarCertificate):
        quick(good().but(2, key=off).ders)


def test_a_stranger_s_certificate_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature is checked first."""

    def never(_: bytes) -> None:
        raise AssertionError

    anchor, upper, lower, leaf = good().ders
    paths = FamiliarPaths(anchor)
    monkeypatch.setattr(path_module, "read", never)
    with pytest.raises(UnfamiliarCertificate):
        paths.chain((certificate(cut(upper)[0], cut(lower)[1]), lower), leaf, NAME)


ODD: dict[str, dict[str, object]] = {
    **test_certificate.FAMILIAR,
    **test_certificate.UNFAMILIAR,
    **{name: {"subject": subject} for name, subject in test_certificate.NAMELESS.items()},
}


@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("name", ODD)
def test_an_odd_certificate_gets_the_library_s_verdict(name: str, which: int) -> None:
    given = good().but(which, **ODD[name])
    anchor, raw = x509.load_der_x509_certificate(given.ders[0]), document(given.chain())
    ours, theirs = (verdict(verifier, raw) for verifier in (kept(anchor), Verifier(anchor)))
    assert str(ours) == str(theirs)


@settings(max_examples=200)
@given(st.data())
def test_what_an_issuer_signs_is_accepted_only_where_the_library_accepts_it(
    data: st.DataObject,
) -> None:
    """Authorities are trusted to sign well; still, no odd certificate tells the two ways apart."""
    ders, which = list(good().ders), data.draw(st.integers(1, 3))
    signed = cut(ders[which])[0]
    position = data.draw(st.integers(0, len(signed) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=2))
    altered = (signed[:position] + piece + signed[position + len(piece) :])[: len(signed)]
    ders[which] = certificate(altered, signed_by(good().keys[which - 1], altered))
    try:
        quick(tuple(ders))
    except UnfamiliarCertificate:
        return
    given = replace(good().chain(), certificate=ders[-1], cabundle=tuple(ders[:-1]))
    anchor = x509.load_der_x509_certificate(ders[0])
    theirs = verdict(Verifier(anchor), document(given))
    assert str(verdict(kept(anchor), document(given))) == str(theirs)


def verdict(verifier: Verifier, raw: bytes) -> Attestation | AttestationError:
    try:
        return verifier.verify(raw, at=NOW)
    except AttestationError as error:
        return error
