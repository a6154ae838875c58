from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.foobar_enclave.fake_kms import HOST, Authority, FakeKms
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
def kms(authority: Authority, socket_folder: Path) -> Iterator[FakeKms]:
    with FakeKms(str(socket_folder / "kms"), authority.server_context(HOST)) as kms:
        yield kms
