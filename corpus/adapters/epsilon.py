"""PyPI's epsilon-attestation-verifier for `corpus.run`: its clock is set, and no nonce compared."""

import base64
import sys
from datetime import datetime
from pathlib import Path
from unittest import mock

from epsilon_verifier import verifier

document, root, time, pcrs, _ = sys.argv[1:]
expected = dict(pair.split("=") for pair in pcrs.split(",")) if pcrs != "-" else {}
with mock.patch.object(verifier, "datetime", wraps=datetime) as clock:
    clock.now.return_value = datetime.fromisoformat(time)
    result = verifier.verify_attestation(
        base64.b64encode(Path(document).read_bytes()).decode(),
        aws_root_cert_path=root,
        **{f"expected_pcr{index}": expected.get(str(index)) for index in (0, 1, 2)},
    )
print("accept" if result.valid else f"reject: {result.error}")
