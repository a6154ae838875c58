from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from foobar_enclave.entropy import RNDADDENTROPY, RNDRESEEDCRNG, feed_kernel_pool
from foobar_enclave.errors import EntropyError, NsmError
from tests.foobar_enclave.fakes import FakeNsm


def test_the_seed_is_credited_where_that_is_allowed(nsm: FakeNsm, tmp_path: Path) -> None:
    device = tmp_path / "random"
    device.touch()
    calls: list[tuple[int, bytes]] = []
    feed_kernel_pool(
        nsm.device,
        device=str(device),
        ioctl=lambda _, number, info: calls.append((number, info)),
    )
    (number, info), (reseed, _) = calls
    assert reseed == RNDRESEEDCRNG == 0x5207
    assert number == RNDADDENTROPY == 0x40085203
    assert struct.unpack("=ii", info[:8]) == (2048, 256)
    assert info[8:] == bytes(range(256))
    assert device.read_bytes() == b""


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (errno.ENOTTY, True),
        (errno.EINVAL, True),
        (errno.ENODATA, True),
        (errno.EPERM, False),
        (errno.EIO, False),
    ],
)
def test_only_a_kernel_without_reseeding_is_excused(
    nsm: FakeNsm, tmp_path: Path, code: int, passes: bool
) -> None:
    device = tmp_path / "random"
    device.touch()

    def ioctl(_descriptor: int, number: int, _info: bytes) -> None:
        if number == RNDRESEEDCRNG:
            raise OSError(code, os.strerror(code))

    if passes:
        feed_kernel_pool(nsm.device, device=str(device), ioctl=ioctl)
    else:
        with pytest.raises(EntropyError, match=os.strerror(code)):
            feed_kernel_pool(nsm.device, device=str(device), ioctl=ioctl)
    assert device.read_bytes() == b""  # the seed went in by the ioctl


def test_elsewhere_it_is_mixed_in_by_a_write(nsm: FakeNsm, tmp_path: Path) -> None:
    device = tmp_path / "random"
    device.touch()
    feed_kernel_pool(nsm.device, device=str(device))  # no ioctl of a file
    assert device.read_bytes() == bytes(range(256))


def test_the_real_pool_takes_it(nsm: FakeNsm) -> None:
    feed_kernel_pool(nsm.device)
    assert nsm.names == ["GetRandom"]


def test_a_module_that_gives_next_to_nothing_is_refused(nsm: FakeNsm, tmp_path: Path) -> None:
    device = tmp_path / "random"
    device.touch()
    nsm.answers["GetRandom"] = {"GetRandom": {"random": bytes(255)}}
    with pytest.raises(EntropyError, match="255 random bytes of 256"):
        feed_kernel_pool(nsm.device, device=str(device))
    assert device.read_bytes() == b""


def test_a_module_without_randomness_is_refused(nsm: FakeNsm) -> None:
    nsm.answers["GetRandom"] = {"Error": "InternalError"}
    with pytest.raises(NsmError):
        feed_kernel_pool(nsm.device)


def test_a_pool_that_cannot_be_fed_is_an_error(nsm: FakeNsm, tmp_path: Path) -> None:
    with pytest.raises(EntropyError, match="No such file"):
        feed_kernel_pool(nsm.device, device=str(tmp_path / "absent"))
    with pytest.raises(EntropyError, match="No space left"):
        feed_kernel_pool(nsm.device, device="/dev/full")


def test_a_refused_credit_is_no_failure(nsm: FakeNsm, tmp_path: Path) -> None:
    def refuse(_descriptor: int, _number: int, _info: bytes) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    device = tmp_path / "random"
    device.touch()
    feed_kernel_pool(nsm.device, device=str(device), ioctl=refuse)
    assert device.read_bytes() == bytes(range(256))
