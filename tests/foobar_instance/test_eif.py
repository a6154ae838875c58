"""Enclave image files: the PCRs that Nitro would report, and images that are none."""

import hashlib
import json
import tempfile
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_instance.attestation import Measurements
from foobar_instance.cli import run
from foobar_instance.eif import ImageMeasurements, measure_image
from foobar_instance.errors import FileError, ImageError
from tests.support.images import (
    COMMAND_LINE,
    KERNEL,
    METADATA,
    PLAIN,
    RAMDISK,
    SIGNATURE,
    Wrong,
    build,
)
from tests.support.vectors import vector_path


def pcr(*parts: bytes) -> bytes:
    """By the rule in AWS's user guide: SHA-384 over zeros and the digest of the contents."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).digest()


def measure(directory: Path, image: bytes) -> ImageMeasurements:
    path = directory / "image.eif"
    path.write_bytes(image)
    return measure_image(path)


def test_the_pcrs_of_an_image(tmp_path: Path) -> None:
    kernel, command_line = b"kernel", b"console=ttyS0"
    assert measure(tmp_path, build()) == ImageMeasurements(
        pcr0=pcr(kernel, command_line, b"bootstrap", b"application", b"more"),
        pcr1=pcr(kernel, command_line, b"bootstrap"),
        pcr2=pcr(b"application", b"more"),
        pcr8=None,
    )


def test_one_ramdisk_leaves_pcr2_to_nothing(tmp_path: Path) -> None:
    found = measure(tmp_path, build(PLAIN[:4]))
    assert found.pcr0 == found.pcr1
    assert found.pcr2 == pcr()


ES256, ES384, ES512 = -7, -35, -36
CURVES: dict[int, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    ES256: (ec.SECP256R1(), hashes.SHA256()),
    ES384: (ec.SECP384R1(), hashes.SHA384()),
    ES512: (ec.SECP521R1(), hashes.SHA512()),
}
PCR0 = pcr(b"kernel", b"console=ttyS0", b"bootstrap", b"application", b"more")


@dataclass(frozen=True)
class Signature:
    """A signature section as AWS's tool writes it, but for what a test changes."""

    algorithm: int = ES384
    key_of: int = ES384
    index: object = 0
    value: bytes | int = PCR0
    unprotected: dict[int, int] = field(default_factory=dict)
    header: dict[int, int] = field(default_factory=dict)
    flip: int = 0
    tag: int | None = None
    as_numbers: bool = True
    until: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    trailing: bytes = b""

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(CURVES[self.key_of][0])

    @cached_property
    def certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), 1)
        builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        return builder.not_valid_after(self.until).sign(self.key, hashes.SHA384())

    def section(self) -> bytes:
        form = list if self.as_numbers else bytes
        value = self.value if isinstance(self.value, int) else form(self.value)
        info = {"register_index": self.index, "register_value": value}
        protected, payload = cbor2.dumps({1: self.algorithm} | self.header), cbor2.dumps(info)
        digest = CURVES[self.algorithm][1]
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
        half = (self.key.key_size + 7) // 8
        raw = r.to_bytes(half, "big") + (s ^ self.flip).to_bytes(half, "big")
        message: object = [protected, self.unprotected, payload, raw]
        cose = cbor2.dumps(message if self.tag is None else cbor2.CBORTag(self.tag, message))
        pem = self.certificate.public_bytes(Encoding.PEM)
        entry = {"signing_certificate": form(pem), "signature": form(cose)}
        return cbor2.dumps([entry]) + self.trailing


def signed(signature: Signature) -> bytes:
    return build((*PLAIN, (SIGNATURE, signature.section())))


@pytest.mark.parametrize(
    "signature",
    [
        Signature(),
        Signature(ES256, ES256),
        Signature(ES512, ES512),
        Signature(tag=18),
        Signature(as_numbers=False),
    ],
    ids=["ES384", "ES256", "ES512", "tagged", "byte strings"],
)
def test_a_signed_image_has_pcr8(tmp_path: Path, signature: Signature) -> None:
    found = measure(tmp_path, signed(signature))
    assert found.pcr8 == pcr(signature.certificate.public_bytes(Encoding.DER))
    assert (found.pcr0, found.signer) == (PCR0, signature.certificate)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (Signature(flip=1), "not the signing certificate's"),
        (Signature(value=bytes(48)), "another PCR0"),
        (Signature(value=48), "no COSE_Sign1"),  # not that many zeros: a gigabyte of them
        (Signature(index=1), "not over PCR0"),
        (Signature(index=False), "not over PCR0"),
        (Signature(algorithm=ES256), "no COSE_Sign1"),
        (Signature(unprotected={4: 1}), "no COSE_Sign1"),
        (Signature(header={4: 1}), "no COSE_Sign1"),
        (Signature(tag=17), "no COSE_Sign1"),
        (Signature(trailing=b"\0"), "no certificate"),
    ],
)
def test_a_signature_that_does_not_hold(tmp_path: Path, signature: Signature, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        measure(tmp_path, signed(signature))


@pytest.mark.parametrize(("year", "words"), [(2100, "to 2100-01-01\n"), (2021, "not now")])
def test_the_certificate_s_validity_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], year: int, words: str
) -> None:
    path = tmp_path / "image.eif"
    path.write_bytes(signed(Signature(until=datetime(year, 1, 1, tzinfo=UTC))))
    assert run(["measure", str(path)]) == 0
    assert words in capsys.readouterr().err


def test_bit_0_is_the_architecture(tmp_path: Path) -> None:
    assert measure(tmp_path, build(wrong=Wrong(flags=1))) == measure(tmp_path, build())


@pytest.mark.parametrize("version", [2, 3])
def test_older_versions_need_no_metadata(tmp_path: Path, version: int) -> None:
    image = build((*PLAIN[:2], *PLAIN[3:]), Wrong(version=version))
    assert measure(tmp_path, image) == measure(tmp_path, build())


def test_no_ramdisk(tmp_path: Path) -> None:
    found = measure(tmp_path, build(PLAIN[:3]))
    assert found.pcr0 == found.pcr1 == pcr(b"kernel", b"console=ttyS0")
    assert found.pcr2 == pcr()


def test_what_no_pcr_covers_is_told(tmp_path: Path) -> None:
    found = measure(tmp_path, build(wrong=Wrong(gap=b"gap")))
    assert found.pcr0 == PCR0
    assert found.warnings == ("3 bytes belong to no section, and no PCR covers them",) * 6


@pytest.mark.parametrize("told", [1, 3])
def test_metadata_may_have_another_size_than_the_header_says(tmp_path: Path, told: int) -> None:
    image = bytearray(build())
    image[300:308] = told.to_bytes(8, "big")  # the third size
    image[544:548] = zlib.crc32(image[548:], zlib.crc32(image[:544])).to_bytes(4, "big")
    found = measure(tmp_path, bytes(image))
    assert found.pcr0 == PCR0
    assert "metadata section, which has 2" in found.warnings[0]


def test_unknown_flags_are_allowed_with_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "image.eif"
    path.write_bytes(build(wrong=Wrong(flags=0x8001)))
    assert run(["measure", str(path)]) == 1
    assert capsys.readouterr().out == ""
    assert run(["measure", "--allow-unknown-flags", str(path)]) == 0
    output = capsys.readouterr()
    assert PCR0.hex() in output.out
    assert "warning: header flags 0x8001: Nitro may measure bits 15 into PCR0" in output.err


def test_images_of_other_tools(capsys: pytest.CaptureFixture[str]) -> None:
    folder = vector_path("eif")
    for name, pcr0, words in (
        ("resigned_same_cert", "998acd64", "header says 1823 bytes"),
        ("eif-gap-after-header", "ffdea18a", "64 bytes belong to no section"),
    ):
        assert run(["measure", str(folder / f"{name}.eif")]) == 0
        output = capsys.readouterr()
        assert json.loads(output.out)["Measurements"]["PCR0"].startswith(pcr0)
        assert words in output.err
    assert run(["measure", str(folder / "eif-empty-ramdisk-pcie-flags.eif")]) == 1
    assert "bits 6, 9" in capsys.readouterr().err


def test_metadata_is_not_measured(tmp_path: Path) -> None:
    other = tuple((kind, b"[]" if kind == METADATA else data) for kind, data in PLAIN)
    assert measure(tmp_path, build(other)) == measure(tmp_path, build())


def test_large_sections_are_read_in_pieces(tmp_path: Path) -> None:
    ramdisk = bytes(range(256)) * 10_000
    found = measure(tmp_path, build((*PLAIN[:3], (RAMDISK, ramdisk))))
    assert found.pcr1 == pcr(b"kernel", b"console=ttyS0", ramdisk)


NO_PEM = cbor2.dumps([{"signing_certificate": 10**9}])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "not an enclave image"),
        (build()[:547], "not an enclave image"),
        (build(wrong=Wrong(magic=b"ELF.")), "not an enclave image"),
        (build(wrong=Wrong(version=1)), "version 1"),
        (build(wrong=Wrong(version=5)), "version 5"),
        (build(wrong=Wrong(count=1)), "1 sections"),
        (build(wrong=Wrong(count=33)), "33 sections"),
        (build(wrong=Wrong(count=5)), "bytes follow"),
        (build(wrong=Wrong(offset=-1)), "overlaps"),
        (build(wrong=Wrong(offset=2**63)), "ends before"),
        (build(wrong=Wrong(size=1)), "its kernel section has another size"),
        (build(wrong=Wrong(flags=0x240)), "flags 0x240: .*bits 6, 9 "),
        (build(wrong=Wrong(crc=1)), "checksum"),
        (build(wrong=Wrong(trailing=b"\0")), "bytes follow"),
        (build()[:-1], "ends before"),
        (build()[:548], "ends before"),
        (build(((9, b"x"), *PLAIN)), "unknown type 9"),
        (build(((0, b"x"), *PLAIN)), "unknown type 0"),
        (build(PLAIN[1:]), "0 kernel sections"),
        (build((*PLAIN, (KERNEL, b"k"))), "2 kernel sections"),
        (build((*PLAIN, (COMMAND_LINE, b"c"))), "2 command_line sections"),
        (build((PLAIN[3], *PLAIN[:3])), "a ramdisk comes before the kernel"),
        (build((*PLAIN[:2], *PLAIN[3:])), "no metadata section, which version 4 demands"),
        (build((*PLAIN, (METADATA, b""))), "more than one metadata"),
        (build((*PLAIN, (SIGNATURE, bytes(32769)))), "longer than 32768"),
        (build((*PLAIN, (SIGNATURE, b""))), "no certificate"),
        (build((*PLAIN, (SIGNATURE, NO_PEM))), "no certificate"),
    ],
)
def test_what_is_no_image(tmp_path: Path, image: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        measure(tmp_path, image)


@settings(max_examples=200)
@given(st.integers(0, len(build()) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, flip: int) -> None:
    image = bytearray(build())
    image[position] ^= flip
    with tempfile.TemporaryDirectory() as directory, pytest.raises(ImageError):
        measure(Path(directory), bytes(image))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        measure_image(tmp_path / "none.eif")


def test_the_command_prints_what_the_measurements_option_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "image.eif"
    path.write_bytes(build())
    assert run(["measure", str(path)]) == 0
    output = capsys.readouterr().out
    fields = json.loads(output)["Measurements"]
    assert list(fields) == ["HashAlgorithm", "PCR0", "PCR1", "PCR2"]
    saved = tmp_path / "measurements.json"
    saved.write_text(output)
    assert Measurements.from_nitro_cli_json(saved).pcrs[0] == measure_image(path).pcr0
    path.write_bytes(b"junk")
    assert run(["measure", str(path)]) == 1
    assert "not an enclave image file" in capsys.readouterr().err
