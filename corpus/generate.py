"""Write the corpus: `python -m corpus.generate`. Every run writes the same bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from corpus.case import FLAGS, Case
from corpus.forms import all_forms
from corpus.material import root
from corpus.trust import all_trust
from tests.support.forge import RULES

FILE: Final = Path(__file__).with_name("attestation-documents.json")


def all_cases() -> list[Case]:
    """Return every case, by rule in the order in which a verifier checks them."""
    order = list(RULES)
    return sorted((*all_forms(), *all_trust()), key=lambda case: order.index(case.rule))


def corpus() -> str:
    """Return the JSON file's text: one case on each line."""
    cases = all_cases()
    head = {
        "title": "Hostile attestation documents of AWS Nitro Enclaves",
        "schema": 1,
        "numberOfCases": len(cases),
        "root": root().public_bytes(Encoding.PEM).decode(),
        "rules": {name: {"demand": r.demand, "source": r.source} for name, r in RULES.items()},
        "flags": FLAGS,
    }
    lines = ",\n".join(json.dumps(_row(case)) for case in cases)
    return json.dumps(head, indent=1).removesuffix("\n}") + f',\n "cases": [\n{lines}\n ]\n}}\n'


def _row(case: Case) -> dict[str, object]:
    row: dict[str, object] = {
        "id": f"{case.rule}/{case.name}",
        "rule": case.rule,
        "source": case.source or RULES[case.rule].source,
        "comment": case.comment,
        "flags": list(case.flags),
        "verdict": case.verdict,
        "time": f"{case.time:%Y-%m-%dT%H:%M:%SZ}",
    }
    if case.pcrs is not None:
        row["pcrs"] = {str(index): pcr.hex() for index, pcr in case.pcrs.items()}
    if case.nonce is not None:
        row["nonce"] = base64.b64encode(case.nonce).decode()
    return row | {"document": base64.b64encode(case.document).decode()}


if __name__ == "__main__":
    FILE.write_text(corpus())
