"""A stream of documents of one enclave, verified by a `Verifier` that is kept."""

from __future__ import annotations

from benchmarks.report import Measurement, Ratio, Section, ratio_of
from benchmarks.rounds import take
from benchmarks.verifiers import EVERVAULT, contestant

OURS = "kept Verifier"
LIMIT = "two bare P-384 verifications"


def run(rounds: int) -> Section:
    """Measure all in turns."""
    measured = take(
        [
            contestant(EVERVAULT, "evervault"),
            contestant(OURS, "warm"),
            contestant(LIMIT, "bare", share=2),
        ],
        rounds=rounds,
        unit="documents/s",
    )
    ours, peer = measured[OURS], measured[EVERVAULT]
    return Section(
        name="verify-warm",
        work="One thread verifies a document of one enclave again and again. A remembered chain "
        "leaves the document's own signature, one verification; the limit allows two.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(ours, peer, bound=3),
            ratio_of(ours, measured[LIMIT]),
            _of_one(ours, measured[LIMIT]),
        ),
    )


def _of_one(mine: Measurement, two: Measurement) -> Ratio:
    """The stricter comparison: with as many verifications as a further document really costs."""
    value = ratio_of(mine, two).value
    text = f"{mine.who} / {two.who.replace('two', 'one').replace('verifications', 'verification')}"
    return Ratio(text, None if value is None else value / 2)
