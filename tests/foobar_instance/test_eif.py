"""Enclave image files: the PCRs that Nitro would report, and images that are none."""

import hashlib
import json
import tempfile
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_instance.attestation import Measurements
from foobar_instance.cli import run
from foobar_instance.eif import HEADER, ImageMeasurements, measure_image
from foobar_instance.errors import FileError, ImageError
from tests.support.documents import Signer
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


def pcr(*parts: bytes) -> bytes:
    """By the rule in AWS's user guide: SHA-384 over zeros and the digest of the contents."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).digest()


def measure(directory: Path, image: bytes) -> ImageMeasurements:
    path = directory / "image.eif"
    path.write_bytes(image)
    return measure_image(path)


def test_the_header_has_the_published_size() -> None:
    assert HEADER.size == 548


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


@pytest.mark.parametrize("as_numbers", [True, False])
def test_a_signed_image_has_pcr8(tmp_path: Path, sign: Signer, *, as_numbers: bool) -> None:
    pem = sign.root_pem
    shown = list(pem) if as_numbers else pem
    section = cbor2.dumps([{"signing_certificate": shown, "signature": [1]}])
    found = measure(tmp_path, build((*PLAIN, (SIGNATURE, section))))
    assert found.pcr8 == pcr(sign.root.public_bytes(Encoding.DER))
    assert found.pcr0 == measure(tmp_path, build()).pcr0


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
        (build(wrong=Wrong(version=2)), "version 2"),
        (build(wrong=Wrong(version=5)), "version 5"),
        (build(wrong=Wrong(count=0)), "0 sections"),
        (build(wrong=Wrong(count=33)), "33 sections"),
        (build(wrong=Wrong(count=5)), "more sections than it counts"),
        (build(wrong=Wrong(extra_size=1)), "more sections than it counts"),
        (build(wrong=Wrong(offset=1)), "not where the header says"),
        (build(wrong=Wrong(size=1)), "another size"),
        (build(wrong=Wrong(crc=1)), "checksum"),
        (build(wrong=Wrong(trailing=b"\0")), "bytes follow"),
        (build()[:-1], "ends in the middle"),
        (build()[:548], "ends before its last section"),
        (build(((9, b"x"), *PLAIN)), "unknown type 9"),
        (build(((0, b"x"), *PLAIN)), "unknown type 0"),
        (build(PLAIN[1:]), "0 kernel sections"),
        (build((*PLAIN, (KERNEL, b"k"))), "2 kernel sections"),
        (build((*PLAIN, (COMMAND_LINE, b"c"))), "2 command_line sections"),
        (build(PLAIN[:3]), "no ramdisk"),
        (build((*PLAIN, (METADATA, b""))), "more than one metadata"),
        (build((*PLAIN, (METADATA, bytes(1024 * 1024 + 1)))), "longer than"),
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
