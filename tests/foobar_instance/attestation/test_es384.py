"""ES384 by each library that is installed: the same verdict on every signature."""

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from emulator.documents import ES384_PROTECTED, cose_signature
from foobar_instance.attestation import es384
from foobar_instance.attestation.es384 import AwsLcKey, CryptographyKey, Es384Key

ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
PRIVATE = ec.derive_private_key(7, ec.SECP384R1())


def by_cryptography(key: ec.EllipticCurvePublicKey) -> Es384Key:
    return CryptographyKey(key)


def by_aws_lc(key: ec.EllipticCurvePublicKey) -> Es384Key:
    fast = CryptographyKey(key).for_many()
    if not isinstance(fast, AwsLcKey):
        pytest.skip("awscrt is not installed: pip install .[fast]")
    return fast


Load = Callable[[ec.EllipticCurvePublicKey], Es384Key]


@pytest.fixture(params=[by_cryptography, by_aws_lc])
def key(request: pytest.FixtureRequest) -> Es384Key:
    load: Load = request.param
    return load(PRIVATE.public_key())


def signed(payload: bytes) -> tuple[bytes, bytes]:
    """What is signed for a payload, and a signature over it."""
    structure = cbor2.dumps(["Signature1", ES384_PROTECTED, b"", payload])
    return structure, cose_signature(PRIVATE, ES384_PROTECTED, payload)


STRUCTURE, SIGNATURE = signed(b"payload")


def other_half(signature: bytes) -> bytes:
    """(r, n - s), which verifies wherever (r, s) does."""
    s = ORDER - int.from_bytes(signature[48:], "big")
    return signature[:48] + s.to_bytes(48, "big")


def test_a_signature_and_its_mirror_verify(key: Es384Key) -> None:
    structure, signature = signed(b"payload")
    assert key.verify(structure, signature)
    assert key.verify(structure, other_half(signature))


def test_another_key_or_other_data_does_not(key: Es384Key) -> None:
    structure, signature = signed(b"payload")
    assert not key.verify(structure + b"\0", signature)
    assert not key.verify(structure, signature[48:] + signature[:48])
    other = CryptographyKey(ec.derive_private_key(8, ec.SECP384R1()).public_key())
    assert not other.verify(structure, signature)
    assert not other.for_many().verify(structure, signature)


@pytest.mark.parametrize(
    "signature",
    [
        bytes(96),
        bytes(48) + b"\1" * 48,
        b"\1" * 48 + bytes(48),
        ORDER.to_bytes(48, "big") * 2,
        (ORDER + 1).to_bytes(48, "big") + b"\1" * 48,
        b"\xff" * 96,
    ],
    ids=["zeros", "r-zero", "s-zero", "order", "r-above-order", "ones"],
)
def test_values_outside_the_group_are_no_signature(key: Es384Key, signature: bytes) -> None:
    assert not key.verify(b"data", signature)


def test_a_value_with_leading_zeros_keeps_its_length(key: Es384Key) -> None:
    for number in range(2000):
        structure, signature = signed(number.to_bytes(4, "big"))
        if signature[0] == 0 or signature[48] == 0:
            assert key.verify(structure, signature)
            return
    raise AssertionError("2000 signatures without a leading zero")


@given(where=st.integers(0, 95), change=st.integers(0, 255), mirrored=st.booleans())
def test_both_libraries_agree_on_an_altered_signature(
    where: int, change: int, *, mirrored: bool
) -> None:
    altered = bytearray(other_half(SIGNATURE) if mirrored else SIGNATURE)
    altered[where] ^= change
    verdicts = [
        load(PRIVATE.public_key()).verify(STRUCTURE, bytes(altered))
        for load in (by_cryptography, by_aws_lc)
    ]
    assert verdicts == [change == 0] * 2


def test_without_the_package_a_key_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es384, "_aws_lc", lambda: None)
    key = by_cryptography(PRIVATE.public_key())
    assert key.for_many() is key


def test_a_release_without_elliptic_curves_is_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    package, crypto = ModuleType("awscrt"), ModuleType("awscrt.crypto")
    package.crypto = crypto  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "awscrt", package)
    monkeypatch.setitem(sys.modules, "awscrt.crypto", crypto)
    assert es384._aws_lc.__wrapped__() is None
    crypto.EC = object  # type: ignore[attr-defined]
    assert es384._aws_lc.__wrapped__() is crypto


def test_the_package_is_not_loaded_for_a_single_document() -> None:
    program = "import sys, foobar_instance.attestation; print('awscrt' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"
