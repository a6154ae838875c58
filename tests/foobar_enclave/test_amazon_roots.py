from __future__ import annotations

import hashlib
import re
import ssl
from typing import cast

from foobar_enclave.kms import AMAZON_ROOTS, tls_context

TEXT = AMAZON_ROOTS.read_text()
# SHA-256 of each certificate's DER, as published at amazontrust.com/repository.
FINGERPRINTS = {
    "Amazon Root CA 1": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "Amazon Root CA 2": "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "Amazon Root CA 3": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "Amazon Root CA 4": "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    "Starfield Services Root Certificate Authority - G2": (
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5"
    ),
}


def test_the_packaged_roots_are_amazons_five_and_no_other() -> None:
    blocks = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", TEXT, re.DOTALL)
    found = [hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest() for block in blocks]
    assert found == list(FINGERPRINTS.values())
    assert "".join(f"{block}\n" for block in blocks) == TEXT


def test_they_are_all_that_is_trusted() -> None:
    context = tls_context(AMAZON_ROOTS)
    names = {
        value
        for certificate in context.get_ca_certs()
        for ((name, value),) in cast("list[tuple[tuple[str, str]]]", certificate["subject"])
        if name == "commonName"
    }
    assert names == FINGERPRINTS.keys()
    assert context.cert_store_stats() == {"x509": 5, "crl": 0, "x509_ca": 5}
    assert context.check_hostname
    assert context.keylog_filename is None
