"""What the program loads before the first createKey: little, and nothing of the SDK or the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
from cryptography.hazmat.primitives.asymmetric import rsa
import foobar_enclave.main
from foobar_enclave.kms import KmsConnector
from foobar_enclave.nsm import NsmDevice
from foobar_enclave.service import EnclaveService
import cbor2

class Nsm:
    def exchange(self, request):
        return cbor2.dumps({"Attestation": {"document": b"document"}})

service = EnclaveService(
    nsm=NsmDevice(transport=Nsm()),
    kms=KmsConnector(None),
    key=rsa.generate_private_key(65537, 2048),
)
answers = []
service.handle(b'{"getAttestation":{}}', answers.append)
service.handle(
    b'{"decrypt":{"sharedSecret":"AAAA","nonce":"AAAA","ciphertext":"AAAA"}}', answers.append
)
assert b"attestation" in answers[0]
assert b"error" in answers[1]
found = {
    name.partition(".")[0]
    for name, module in sys.modules.items()
    if "site-packages" in (getattr(module, "__file__", None) or "")
}
print(json.dumps(sorted(found)))
"""


def test_no_sdk_no_command_line_and_no_pycose_is_loaded_before_create_key() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env={},  # without the variables by which coverage is measured in it
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(result.stdout)) - {"_distutils_hack"}  # a .pth file's, not ours
    assert {"asn1crypto", "cbor2", "cryptography"} <= loaded
    assert not loaded & {"boto3", "botocore", "urllib3", "click", "pycose", "moto", "flask"}
    assert loaded <= {"asn1crypto", "cbor2", "cryptography", "cffi", "_cffi_backend", "_cbor2"}
