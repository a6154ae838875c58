from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.foobar_enclave.fake_kms import Authority, FakeKms
from tests.foobar_enclave.fakes import FakeNsm


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def nsm() -> FakeNsm:
    return FakeNsm()


@pytest.fixture
def kms(authority: Authority) -> Iterator[FakeKms]:
    with FakeKms(authority.tls) as kms:
        yield kms
