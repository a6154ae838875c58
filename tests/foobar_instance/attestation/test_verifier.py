"""The kept verifier: what it remembers, for how long, and under many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from foobar_instance.attestation import (
    CLOCK_SKEW,
    AttestationError,
    Verifier,
    verify_attestation,
)
from tests.support.forge import chain, document, pki, root
from tests.support.issued import HOUR, MODULE_ID, NOW, usual

SECOND = timedelta(seconds=1)


def test_a_remembered_chain_does_not_excuse_a_bad_signature() -> None:
    verifier = Verifier(root())
    verifier.verify(document())
    good = document()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-48] + bytes(48)):
        with pytest.raises(AttestationError) as caught:
            verifier.verify(bad)
        assert caught.value.rule == "signature"


def test_a_remembered_chain_holds_within_its_window_only() -> None:
    given = usual()
    verifier, raw = Verifier(given.root), document(given.chain)
    begin, end = (NOW.replace(microsecond=0) + offset for offset in (-HOUR, HOUR))
    for at in (begin, NOW, end):
        verifier.verify(raw, at=at)
    for at in (begin - SECOND, end + SECOND, begin - timedelta(microseconds=1), end + SECOND / 2):
        with pytest.raises(AttestationError) as caught:
            verifier.verify(raw, at=at)
        assert caught.value.rule == "chain-validity"
    verifier.verify(raw, at=NOW)


def test_a_chain_is_remembered_with_its_bundle_and_module() -> None:
    verifier = Verifier(root())
    verifier.verify(document())
    good = chain()
    others = {
        "chain-order": document(replace(good, cabundle=(*good.cabundle, good.cabundle[3]))),
        "chain-path": document(replace(good, cabundle=(good.cabundle[0], *good.cabundle[2:]))),
        "leaf-subject": document(module_id="i-0123456789abcdef0-enc0"),
        "certificate": document(certificate=good.certificate[:-1]),
    }
    for rule, raw in others.items():
        with pytest.raises(AttestationError) as caught:
            verifier.verify(raw)
        assert caught.value.rule == rule


def test_eight_threads_get_the_same_answers() -> None:
    chains = [pki().issue(MODULE_ID, now=NOW) for _ in range(4)]
    good = [document(each, nonce=b"%d" % number) for number, each in enumerate(chains)]
    bad = [raw[:-48] + bytes(48) for raw in good]
    verifier, start = Verifier(root()), threading.Barrier(8)

    def work(first: int) -> None:
        start.wait(timeout=10)
        for step in range(24):
            number = (first + step) % 4
            assert verifier.verify(good[number]).nonce == b"%d" % number
            with pytest.raises(AttestationError) as caught:
                verifier.verify(bad[number])
            assert caught.value.rule == "signature"

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, first) for first in range(8)]:
            done.result(timeout=60)


def test_each_verifier_has_its_own_root_and_memory() -> None:
    given = usual()
    raw = document(given.chain)
    Verifier(given.root).verify(raw)
    with pytest.raises(AttestationError) as caught:
        Verifier(root()).verify(raw)
    assert caught.value.rule == "chain-order"


@pytest.mark.parametrize("at", [NOW.replace(tzinfo=None), datetime(2026, 3, 1)])  # noqa: DTZ001
def test_a_time_without_zone_is_the_caller_s_mistake(at: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        verify_attestation(document(), root=root(), at=at)


def test_an_age_without_a_clock_is_the_caller_s_mistake() -> None:
    with pytest.raises(ValueError, match="max_age needs"):
        verify_attestation(document(), root=root(), max_age=HOUR)


def test_any_time_zone_will_do() -> None:
    east = timezone(timedelta(hours=14))
    given = usual()
    raw = document(given.chain)
    at = (NOW + HOUR / 2).astimezone(east)
    verify_attestation(raw, root=given.root, at=at, max_age=HOUR)
    with pytest.raises(AttestationError, match="not at 2026-03-01 13:30:00"):
        verify_attestation(raw, root=given.root, at=(NOW + 1.5 * HOUR).astimezone(east))


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_time(at: datetime) -> None:
    with pytest.raises(AttestationError) as caught:
        verify_attestation(document(), root=root(), at=at, max_age=HOUR)
    assert caught.value.rule == "chain-validity"


def test_a_clock_that_is_behind_may_be_before_the_certificates() -> None:
    """Leaves are backdated by 3 seconds, and the skew is a minute."""
    raw = document()
    at = NOW - CLOCK_SKEW
    assert verify_attestation(raw, root=root(), at=at, max_age=HOUR).timestamp == NOW
    with pytest.raises(AttestationError) as caught:
        verify_attestation(raw, root=root(), at=at)
    assert caught.value.rule == "chain-validity"
    with pytest.raises(AttestationError) as caught:
        verify_attestation(raw, root=root(), at=at - SECOND, max_age=HOUR)
    assert caught.value.rule == "chain-validity"


def test_a_clock_that_is_ahead_is_not_turned_back_to_the_document_s_time() -> None:
    given = usual()
    with pytest.raises(AttestationError) as caught:
        verify_attestation(
            document(given.chain), root=given.root, at=NOW + 2 * HOUR, max_age=3 * HOUR
        )
    assert caught.value.rule == "chain-validity"


def test_a_document_without_pcr0_is_refused_even_where_debug_mode_is_allowed() -> None:
    with pytest.raises(AttestationError, match="PCR0 is missing"):
        verify_attestation(document(pcrs={1: b"\1" * 48}), root=root(), allow_debug=True)


def test_without_a_clock_the_document_s_own_time_counts() -> None:
    """Saved documents verify for ever; one signed outside its certificates' time never does."""
    assert verify_attestation(document(), root=root()).timestamp == NOW
    late = document(timestamp=int((NOW + 4 * HOUR).timestamp() * 1000))
    with pytest.raises(AttestationError) as caught:
        verify_attestation(late, root=root())
    assert caught.value.rule == "chain-validity"
