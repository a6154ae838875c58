import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from emulator.documents import attestation_document
from foobar_instance.attestation import AttestationError, Verifier
from tests.vm.authorities import KMS_HOST, Authorities, create, load, save

NOW = datetime.now(UTC)
PCR0 = bytes(range(48))
MODULE = "i-0123456789abcdef0-enc0123456789abcdef"


@pytest.fixture(scope="module")
def authorities() -> Authorities:
    return create(NOW)


def test_what_it_signs_verifies_under_its_own_root_alone(authorities: Authorities) -> None:
    document = attestation_document(
        authorities.pki.issue(MODULE, now=NOW), module_id=MODULE, pcrs={0: PCR0}, timestamp=NOW
    )
    root = x509.load_pem_x509_certificate(authorities.nitro_root)
    verified = Verifier(root=root).verify(document, at=NOW)
    assert verified.module_id == MODULE
    other = x509.load_pem_x509_certificate(create(NOW).nitro_root)
    with pytest.raises(AttestationError):
        Verifier(root=other).verify(document, at=NOW)


def test_what_is_kept_signs_under_the_same_root(authorities: Authorities, tmp_path: Path) -> None:
    save(authorities, tmp_path)
    loaded = load(tmp_path)
    chain = loaded.pki.issue(MODULE, now=NOW)
    document = attestation_document(chain, module_id=MODULE, pcrs={0: PCR0}, timestamp=NOW)
    root = x509.load_pem_x509_certificate(authorities.nitro_root)
    assert Verifier(root=root).verify(document, at=NOW).pcrs[0] == PCR0
    assert loaded.tls_key_and_certificate == authorities.tls_key_and_certificate
    assert loaded.tls_ca == authorities.tls_ca
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_kms_has_its_own_name_under_the_tls_authority(
    authorities: Authorities, tmp_path: Path
) -> None:
    path = tmp_path / "kms.pem"
    path.write_bytes(authorities.tls_key_and_certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    assert handshake(authorities, server, KMS_HOST)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authorities, server, "kms.eu-west-1.amazonaws.com")


def handshake(authorities: Authorities, server: ssl.SSLContext, name: str) -> str | None:
    """The TLS version that a client agrees on that asks for `name` and trusts the authority."""
    client = ssl.create_default_context(cadata=authorities.tls_ca.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return near.version()


def test_the_parent_gets_no_key_that_signs_documents(authorities: Authorities) -> None:
    parts = (authorities.nitro_root, authorities.tls_ca, authorities.tls_key_and_certificate)
    assert [part.count(b"PRIVATE KEY-----\n") for part in parts] == [0, 0, 2]
    key, certificate = authorities.tls_key_and_certificate.split(b"-----BEGIN CERTIFICATE-----", 1)
    assert key.count(b"BEGIN") == 1
    assert b"BEGIN" not in certificate
