"""The verification benchmarks do the work that they say, and say what is not there."""

from __future__ import annotations

import pytest

from benchmarks import documents, verifiers, verify_warm
from benchmarks.documents import Document
from benchmarks.rounds import Contestant
from benchmarks.verifiers import KINDS, contestant
from foobar_instance.attestation import AttestationError, Verifier


@pytest.fixture
def development(monkeypatch: pytest.MonkeyPatch) -> Document:
    """No test vectors are there."""
    monkeypatch.setattr(documents, "FOLDER", documents.FOLDER / "nowhere")
    made = documents.document()
    monkeypatch.setattr(verifiers, "document", lambda: made)
    return made


def test_without_test_vectors_a_document_under_a_development_root_serves(
    development: Document,
) -> None:
    made = development
    assert not made.is_genuine
    root = verifiers._root()
    assert Verifier(root).verify(made.raw, at=made.at).nonce == bytes(32)
    with pytest.raises(AttestationError):
        Verifier().verify(made.raw)


@pytest.mark.usefixtures("development")
@pytest.mark.parametrize("kind", ["warm", "cold", "bare", "new-key"])
def test_each_contestant_verifies(kind: str) -> None:
    assert KINDS[kind]()()


@pytest.mark.usefixtures("development")
def test_a_contestant_that_lacks_something_says_what() -> None:
    with pytest.raises(verifiers._AbsentError, match=r"evervault|root"):
        KINDS["evervault"]()


def test_a_contestant_that_is_not_there_is_absent_and_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_kind: str, _seconds: float) -> float:
        raise verifiers._AbsentError("not installed")

    monkeypatch.setattr(verifiers, "_sample", refuse)
    absent = contestant("peer", "evervault")
    assert (absent.absent, absent.sample) == ("not installed", None)


def test_a_share_divides_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "_sample", lambda _kind, _seconds: 100.0)
    limit = contestant("limit", "bare", share=5)
    assert limit.sample is not None
    assert limit.sample() == 20


def test_the_warm_table_compares_with_one_verification_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = {"evervault": 10.0, "warm": 80.0, "bare": 100.0}

    def fixed(who: str, kind: str, *, share: int = 1) -> Contestant:
        if kind not in rates:
            return Contestant(who, absent="not installed")
        return Contestant(who, lambda: rates[kind] / share)

    monkeypatch.setattr(verify_warm, "contestant", fixed)
    found = {ratio.text: (ratio.value, ratio.verdict) for ratio in verify_warm.run(1).ratios}
    assert found[f"{verify_warm.OURS} / {verifiers.EVERVAULT}"] == (8, "reached")
    assert found[f"{verify_warm.OURS} / {verify_warm.LIMIT}"] == (1.6, "")
    assert found[f"{verify_warm.OURS} / one bare P-384 verification"] == (0.8, "")
