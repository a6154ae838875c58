"""Addresses: parsing, listening, connecting."""

import errno
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.addresses import (
    ENCLAVE,
    RELAY,
    Address,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    connect,
    listen,
    parse_address,
)
from foobar_shared.errors import AddressError

U32 = st.integers(0, 2**32 - 1)
HOSTS = st.from_regex(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,3}\.?", fullmatch=True)


def test_the_original_addresses_are_kept() -> None:
    assert str(ENCLAVE) == "vsock:16:1000"
    assert str(RELAY) == "vsock:3:1001"


@given(
    st.builds(VsockAddress, U32, U32)
    | st.builds(UnixAddress, st.from_regex(r"[a-z/. :]{1,107}", fullmatch=True))
    | st.builds(TcpAddress, HOSTS, st.integers(0, 65535))
)
def test_round_trip(address: Address) -> None:
    assert parse_address(str(address)) == address


@given(st.text())
def test_parsing_raises_nothing_else(text: str) -> None:
    try:
        parse_address(text)
    except AddressError:
        return


def test_ipv6() -> None:
    assert parse_address("[::1]:443") == TcpAddress("::1", 443)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vsock:16",
        "vsock:16:1000:1",
        "vsock:4294967296:1",
        "vsock:1:4294967296",
        "vsock:\u0661:1",
        "unix:",
        "unix:/\0",
        "unix:/" + "x" * 107,
        "localhost",
        "localhost:65536",
        "user@host:443",
        "host..example:443",
        f"{'x' * 64}:443",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_listen_and_connect(kind: str, tmp_path: Path) -> None:
    address: Address = (
        UnixAddress(f"{tmp_path}/s") if kind == "unix" else TcpAddress("127.0.0.1", 0)
    )
    with listen(address) as listener:
        if kind == "tcp":
            address = TcpAddress("127.0.0.1", listener.getsockname()[1])
        with connect(address, seconds=5) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    address = UnixAddress(f"{tmp_path}/s")
    listen(address).close()
    listen(address).close()


def test_a_live_unix_socket_is_not_replaced(tmp_path: Path) -> None:
    address = UnixAddress(f"{tmp_path}/s")
    with listen(address):
        with pytest.raises(OSError, match="in use") as refused:
            listen(address)
        assert refused.value.errno == errno.EADDRINUSE


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use"):
        listen(UnixAddress(str(path)))
    assert path.read_text() == "data"


def test_connecting_to_nobody(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(UnixAddress(f"{tmp_path}/none"), seconds=1)


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="no AF_VSOCK on this system")
def test_vsock_listens_on_any_cid() -> None:
    try:
        listener = listen(VsockAddress(cid=2**32 - 1, port=2**32 - 1))
    except OSError as error:
        pytest.skip(f"no vsock on this machine: {error}")
    with listener:
        assert listener.family == socket.AF_VSOCK
