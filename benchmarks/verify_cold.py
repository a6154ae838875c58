"""Documents of distinct enclaves: nothing is remembered from one to the next."""

from __future__ import annotations

from benchmarks.report import Section, ratio_of
from benchmarks.rounds import take
from benchmarks.verifiers import EVERVAULT, contestant

OURS = "Verifier, new chains"
LIMIT = "five bare P-384 verifications"
NEW_KEYS = "five P-384 verifications by new keys"


def run(rounds: int) -> Section:
    """Measure all in turns."""
    measured = take(
        [
            contestant(EVERVAULT, "evervault"),
            contestant(OURS, "cold"),
            contestant(LIMIT, "bare", share=5),
            contestant(NEW_KEYS, "new-key", share=5),
        ],
        rounds=rounds,
        unit="documents/s",
    )
    ours, peer = measured[OURS], measured[EVERVAULT]
    return Section(
        name="verify-cold",
        work="One thread verifies a document as if each were of another enclave: four certificates "
        "and the document's own signature, five verifications.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(ours, peer, bound=1.2),
            ratio_of(ours, measured[LIMIT], bound=0.85),
            ratio_of(ours, measured[NEW_KEYS]),
        ),
    )
