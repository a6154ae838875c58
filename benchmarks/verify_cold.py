"""Documents of distinct enclaves: nothing is remembered from one to the next."""

from __future__ import annotations

from benchmarks.report import Section, ratio_of
from benchmarks.rounds import take
from benchmarks.verifiers import EVERVAULT, contestant

OURS = "kept Verifier, new chains"
FAST = "kept Verifier, new chains, AWS-LC"
NEAR = "kept Verifier, another enclave of one instance"
NEAR_FAST = "kept Verifier, another enclave of one instance, AWS-LC"
LIMIT = "five bare P-384 verifications"
NEW_KEYS = "five P-384 verifications by new keys"
FAST_LIMIT = "five bare P-384 verifications, AWS-LC"


def run(rounds: int) -> Section:
    """Measure all in turns."""
    measured = take(
        [
            contestant(EVERVAULT, "evervault"),
            contestant(OURS, "cold"),
            contestant(FAST, "cold-aws-lc"),
            contestant(NEAR, "neighbours"),
            contestant(NEAR_FAST, "neighbours-aws-lc"),
            contestant(LIMIT, "bare", share=5),
            contestant(NEW_KEYS, "new-key", share=5),
            contestant(FAST_LIMIT, "bare-aws-lc", share=5),
        ],
        rounds=rounds,
        unit="documents/s",
    )
    ours, peer = measured[OURS], measured[EVERVAULT]
    return Section(
        name="verify-cold",
        work="One thread verifies a document as if each were of another enclave: four certificates "
        "and the document's own signature, five verifications. Enclaves of one instance share "
        "their authorities, which leaves two.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(ours, peer, bound=1.2),
            ratio_of(measured[FAST], peer, bound=3.5),
            ratio_of(ours, measured[LIMIT], bound=0.85),
            ratio_of(ours, measured[NEW_KEYS]),
            ratio_of(measured[FAST], measured[FAST_LIMIT]),
            ratio_of(measured[FAST_LIMIT], peer),
            ratio_of(measured[NEAR], peer),
            ratio_of(measured[NEAR_FAST], peer),
        ),
    )
