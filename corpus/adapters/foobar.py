"""This project's verifier as a command for `corpus.run`."""

import sys
from datetime import datetime
from pathlib import Path

from cryptography import x509

from foobar_instance.attestation import AttestationError, Measurements, verify_attestation

document, root, time, pcrs, nonce = sys.argv[1:]
expected = dict(pair.split("=") for pair in pcrs.split(",")) if pcrs != "-" else {}
try:
    verify_attestation(
        Path(document).read_bytes(),
        root=x509.load_pem_x509_certificate(Path(root).read_bytes()),
        at=datetime.fromisoformat(time),
        measurements=Measurements.from_mapping({int(i): pcr for i, pcr in expected.items()})
        if expected
        else None,
        nonce=bytes.fromhex(nonce) if nonce != "-" else None,
    )
    print("accept")
except AttestationError as error:
    print("reject", error.rule)
