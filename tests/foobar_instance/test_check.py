"""`check` against an enclave and KMS that answer, and what is said of those that do not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from foobar_instance.check import check
from foobar_instance.errors import KmsRequestError
from foobar_shared.addresses import Address, UnixAddress
from foobar_shared.messages import GetAttestationRequest
from tests.foobar_instance.fakes import FakeEnclave
from tests.foobar_instance.peers import answering
from tests.support.documents import KEY_ARN, NOW, OTHER_PCR0, REGION, Signer


@dataclass
class AskedKms:
    """KMS that raises `error`, if there is one; makes itself its own client."""

    error: KmsRequestError | None = None
    asked: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, region: str) -> "AskedKms":
        assert region == REGION
        return self

    def check_derive(self, **question: object) -> None:
        self.asked.append(question)
        if self.error:
            raise self.error


@pytest.fixture
def kms() -> AskedKms:
    return AskedKms()


@pytest.fixture
def enclave(sign: Signer) -> FakeEnclave:
    return FakeEnclave(sign)


@pytest.fixture
def address(enclave: FakeEnclave) -> Iterator[Address]:
    with answering(enclave) as address:
        yield address


def found(
    sign: Signer, kms: AskedKms, *addresses: Address, key: bytes | None = None
) -> list[tuple[int, str]]:
    findings = check(
        sign.key() if key is None else key, addresses, sign.trust(),
        now=lambda: NOW, kms=kms,  # type: ignore[arg-type]
    )  # fmt: skip
    return [(finding.exit_code, str(finding)) for finding in findings]


def test_all_is_well(sign: Signer, kms: AskedKms, enclave: FakeEnclave, address: Address) -> None:
    assert found(sign, kms, address) == [
        (0, f"ok: the attestation of {KEY_ARN} verifies"),
        (0, f"ok: {address}: the key's enclave answers, as pinned"),
        (0, f"ok: {address}: KMS would let this enclave use the key"),
    ]
    (request,) = enclave.requests
    assert isinstance(request, GetAttestationRequest)
    (question,) = kms.asked
    assert question["key_arn"] == KEY_ARN
    assert sign.trust().verify_saved(question["attestation"], "it").nonce == request.nonce  # type: ignore[arg-type]


def test_each_enclave_is_checked(sign: Signer, kms: AskedKms, address: Address) -> None:
    findings = found(sign, kms, UnixAddress("/nonexistent"), address)
    assert [code for code, _ in findings] == [0, 1, 0, 0]
    assert findings[1][1].startswith("failed: unix:/nonexistent: no enclave answers")


def test_another_enclave(
    sign: Signer, kms: AskedKms, enclave: FakeEnclave, address: Address
) -> None:
    enclave.pcr0 = OTHER_PCR0
    assert found(sign, kms, address)[1][0] == 3
    enclave.pcr0 = b"\1" * 48
    enclave.timestamp = NOW - timedelta(hours=1)
    assert found(sign, kms, address)[1][0] == 3
    assert kms.asked == []


def test_an_enclave_that_is_not_the_keys(
    sign: Signer, kms: AskedKms, enclave: FakeEnclave, address: Address
) -> None:
    enclave.pcr0 = OTHER_PCR0
    (_, (code, line)) = [
        (finding.exit_code, str(finding))
        for finding in check(
            sign.key(), [address], sign.trust(None), now=lambda: NOW, kms=kms  # type: ignore[arg-type]
        )
    ]  # fmt: skip
    assert (code, "another PCR0 than the key's" in line) == (3, True)


def test_kms_that_would_refuse(sign: Signer, kms: AskedKms, address: Address) -> None:
    kms.error = KmsRequestError("KMS refused: NotFoundException:\n no such key")
    code, line = found(sign, kms, address)[2]
    assert code == 1
    assert line == f"failed: {address}: KMS refused: NotFoundException:\\n no such key"


def test_no_key(sign: Signer, kms: AskedKms, address: Address) -> None:
    ((code, line),) = found(sign, kms, address, key=sign(None))
    assert code == 3
    assert "does not attest a key" in line
