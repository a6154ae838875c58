"""The packaged roots are AWS's, to the byte."""

from __future__ import annotations

import runpy
import shutil
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from foobar_instance.attestation import (
    Partition,
    UntrustedCertificate,
    anchors,
    packaged_root,
    verify_attestation,
)
from tests.support.forge import chain, document, root

# As published: docs.aws.amazon.com/enclaves (Verifying the root of trust), and of GovCloud.
FINGERPRINTS: dict[Partition, str] = {
    "aws": "641A0321A3E244EFE456463195D606317ED7CDCC3C1756E09893F3C68F79BB5B",
    "aws-us-gov": "20BCD30A3E168EA03789E1C45912BC123C4DE3C977B8A6E1C125C7929D668B3B",
}
FILES: dict[Partition, str] = {
    "aws": "aws_nitro_enclaves_root_g1.pem",
    "aws-us-gov": "aws_us_gov_nitro_enclaves_root.pem",
}


@pytest.mark.parametrize("partition", get_args(Partition))
def test_a_packaged_root_is_the_published_one(partition: Partition) -> None:
    certificate = packaged_root(partition)
    der = certificate.public_bytes(Encoding.DER)
    assert sha256(der).hexdigest().upper() == FINGERPRINTS[partition]
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == f"{partition}.nitro-enclaves"
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("partition", get_args(Partition))
def test_another_root_in_the_packaged_file_is_refused(partition: Partition, tmp_path: Path) -> None:
    """In a copy of the module and its files."""
    source = Path(anchors.__file__)
    shutil.copy(source, tmp_path)
    shutil.copytree(source.with_name("roots"), tmp_path / "roots")
    copied = runpy.run_path(str(tmp_path / source.name))["packaged_root"]
    (tmp_path / "roots" / FILES[partition]).write_bytes(root().public_bytes(Encoding.PEM))
    with pytest.raises(RuntimeError, match="is not the published one"):
        copied(partition)


@pytest.mark.parametrize("partition", get_args(Partition))
def test_a_document_of_another_partition_is_told_which(partition: Partition) -> None:
    bundle = (packaged_root(partition).public_bytes(Encoding.DER), *chain().cabundle[1:])
    with pytest.raises(UntrustedCertificate, match=f"AWS's partition {partition}, not") as caught:
        verify_attestation(document(cabundle=bundle), root=root())
    assert caught.value.rule == "chain-order"
