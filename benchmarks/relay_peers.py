"""The relays that are compared: how each is started, and where it comes from.

The peers are Debian's packages. Those that are not installed are fetched with apt and unpacked
into a folder of their own; nothing is installed, and nothing runs as a service.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from foobar_shared.addresses import Address, TcpAddress, UnixAddress

OURS: Final = "proxy"
C_RELAY: Final = "C, read and write"

PROJECT: Final = Path(__file__).parent.parent
_UNPACKED: Final = PROJECT / ".venvs" / "peers"
# What each peer needs beyond the base system and what OpenSSL and systemd bring.
_PACKAGES: Final = {
    "nginx": ("nginx", "libnginx-mod-stream"),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
    "socat": ("socat", "libwrap0"),
}
_SOCAT_TCP: Final = "bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=1024"

_NGINX: Final = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
stream {{
    server {{
        listen {front};
        proxy_pass {back};
        proxy_buffer_size 256k;
        proxy_timeout 300s;
        tcp_nodelay on;
    }}
}}
"""
_HAPROXY: Final = """\
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 10s
    timeout client 300s
    timeout server 300s
listen relay
    bind {front}
    server target {back}
"""


class AbsentError(Exception):
    """A peer cannot be run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a relay listens, and where it dials; `unix:PATH` or a port of 127.0.0.1."""

    front: Address
    back: Address


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay that can be started.

    Attributes:
        who: its name in the table.
        command: the command line between two places; may write into the folder.
            Raises `AbsentError`.
    """

    who: str
    command: Callable[[Places, Path], Sequence[str | Path]]


def peers() -> tuple[Peer, ...]:
    """All, in the order of the tables: ours first, then the limit, then the others."""
    return (
        Peer(OURS, _ours),
        Peer(C_RELAY, _c_relay),
        Peer("nginx", _nginx),
        Peer("haproxy", _haproxy),
        Peer("socat", _socat),
    )


def compiled(name: str) -> Path:
    """The program made of `benchmarks/NAME.c`, in the folder of what is unpacked.

    Raises:
        AbsentError: there is no C compiler, or it fails.
    """
    source = Path(__file__).with_name(f"{name}.c")
    read = source.read_bytes() + source.with_name("relay_place.h").read_bytes()
    digest = hashlib.sha256(read).hexdigest()[:16]
    program = _UNPACKED / f"{name}-{digest}"
    compiler = shutil.which("cc")
    if not program.exists():
        if compiler is None:
            raise AbsentError("no C compiler: install Debian's gcc")
        _UNPACKED.mkdir(parents=True, exist_ok=True)
        _run([compiler, "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, source])
    return program


def argument(address: Address) -> str:
    """As the C programs read it: `unix:PATH`, or the port."""
    return str(address.port) if isinstance(address, TcpAddress) else str(address)


def environment() -> dict[str, str]:
    """That of this process, with the libraries of what is unpacked."""
    roots = [str(_UNPACKED / name) for name in _PACKAGES]
    machine = f"{os.uname().machine}-linux-gnu"
    folders = [f"{root}/{top}/{machine}" for root in roots for top in ("usr/lib", "lib")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


def _ours(places: Places, _: Path) -> Sequence[str | Path]:
    listen_and_to = ("--listen", str(places.front), "--to", str(places.back))
    return (sys.executable, "-m", "proxy", "--quiet", "--max-connections", "1024", *listen_and_to)


def _c_relay(places: Places, _: Path) -> Sequence[str | Path]:
    return (compiled("relay"), argument(places.front), argument(places.back))


def _nginx(places: Places, folder: Path) -> Sequence[str | Path]:
    program = _program("nginx", "usr/sbin/nginx", _PACKAGES["nginx"])
    modules = Path("/usr/lib/nginx/modules")
    if program.is_relative_to(_UNPACKED) or not (modules / "ngx_stream_module.so").exists():
        modules = _UNPACKED / "nginx" / "usr/lib/nginx/modules"
    if not (modules / "ngx_stream_module.so").exists():
        raise AbsentError("its stream module is not installed: libnginx-mod-stream")
    text = _NGINX.format(modules=modules, folder=folder, front=places.front, back=places.back)
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    return (program, "-p", folder, "-e", "stderr", "-c", configuration)


def _haproxy(places: Places, folder: Path) -> Sequence[str | Path]:
    program = _program("haproxy", "usr/sbin/haproxy", _PACKAGES["haproxy"])
    configuration = folder / "haproxy.cfg"
    front, back = (str(place).replace("unix:", "unix@") for place in (places.front, places.back))
    configuration.write_text(_HAPROXY.format(front=front, back=back))
    return (program, "-db", "-f", configuration)


def _socat(places: Places, _: Path) -> Sequence[str | Path]:
    program = _program("socat", "usr/bin/socat", _PACKAGES["socat"])
    if isinstance(places.front, UnixAddress):
        front = f"UNIX-LISTEN:{places.front.path},fork,backlog=1024"
    else:
        front = f"TCP-LISTEN:{argument(places.front)},{_SOCAT_TCP}"
    if isinstance(places.back, UnixAddress):
        back = f"UNIX-CONNECT:{places.back.path}"
    else:
        back = f"TCP:{places.back},nodelay"
    return (program, front, back)


def _program(name: str, path: str, packages: Sequence[str]) -> Path:
    """The installed program, or the one of an unpacked package.

    Raises:
        AbsentError: neither is to be had.
    """
    installed = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed:
        return Path(installed)
    root = _UNPACKED / name
    if not (root / path).exists():
        _unpack(packages, root)
    return root / path


def _unpack(packages: Sequence[str], root: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise AbsentError("not installed, and there is no apt to fetch it with")
    with tempfile.TemporaryDirectory() as name:
        _run(["apt-get", "--quiet", "download", *packages], folder=Path(name))
        root.mkdir(parents=True, exist_ok=True)
        for archive in sorted(Path(name).glob("*.deb")):
            _run(["dpkg", "-x", archive, root])


def _run(command: Sequence[str | Path], *, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise AbsentError(f"{Path(command[0]).name}: {said[-1]}")
