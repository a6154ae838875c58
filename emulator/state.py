"""The directory in which a running emulator keeps its sockets and files: private, and one each."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from emulator.errors import NotUpError, StateDirectoryError
from foobar_shared.addresses import UnixAddress, parse_address
from foobar_shared.errors import AddressError

_NAME: Final = "foobar-emulator"
_LOCK: Final = "lock"
_ENVIRONMENT: Final = "environment.json"
# A dot in front marks a file that was not written to its end.
_OWN_FILE: Final = re.compile(r"\.?[a-z0-9-]{1,48}\.(?:sock|pem|json)")


@dataclass(frozen=True, slots=True)
class Environment:
    """What points a program at an emulator."""

    variables: Mapping[str, str]
    unset: Sequence[str]

    def as_shell(self) -> str:
        """Return lines for a POSIX shell."""
        lines = [f"unset {name}" for name in self.unset]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return "\n".join(lines) + "\n"

    def applied_to(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` as it is after these lines."""
        kept = {name: value for name, value in base.items() if name not in self.unset}
        return kept | dict(self.variables)


def default_directory() -> Path:
    """Return the user's own: in XDG_RUNTIME_DIR, else in the directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime, _NAME)
    return Path(tempfile.gettempdir(), f"{_NAME}-{os.getuid()}")


def read_environment(directory: Path) -> Environment:
    """Return the environment of the emulator that is up in `directory`.

    Raises:
        NotUpError: none is.
        StateDirectoryError: the directory is another user's, or open to others.
    """
    not_up = NotUpError(f"no emulator is up in {directory}: start one with python -m emulator up")
    try:
        _check_private(directory)
        with (directory / _LOCK).open("rb") as lock:
            if _locks(lock.fileno(), fcntl.LOCK_SH):
                raise not_up
        return Environment(**json.loads((directory / _ENVIRONMENT).read_text()))
    except FileNotFoundError:
        raise not_up from None


class StateDirectory:
    """One emulator's directory while the context lasts; at the end it is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = -1

    def __enter__(self) -> Self:
        self.socket("enclave-2")  # refuses a path that is too long
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateDirectoryError(
                f"cannot create {self.path} ({error.strerror}): choose another directory"
            ) from None
        _check_private(self.path)
        lock = self.path / _LOCK
        if not lock.exists() and any(self.path.iterdir()):
            raise StateDirectoryError(f"{self.path} holds other files: choose another directory")
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if not _locks(self._lock, fcntl.LOCK_EX):
            os.close(self._lock)
            raise StateDirectoryError(
                f"an emulator is already up in {self.path}: end it with Ctrl-C, or give this one "
                "another --directory"
            )
        self._clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        (self.path / _LOCK).unlink()
        with contextlib.suppress(OSError):  # somebody put a file of theirs there
            self.path.rmdir()
        os.close(self._lock)

    def socket(self, name: str) -> UnixAddress:
        """Return the address of a unix socket.

        Raises:
            StateDirectoryError: the name has other characters than a-z, 0-9 and -, or the path is
                longer than the system allows.
        """
        path = self.path / f"{name}.sock"
        try:
            parse_address(f"unix:{path}")
        except AddressError:
            raise StateDirectoryError(
                f"{path} is too long for the path of a socket: choose a shorter directory or name"
            ) from None
        if not _OWN_FILE.fullmatch(f"{name}.sock"):
            raise StateDirectoryError(f"not a name of a socket: {name!r}")
        return UnixAddress(str(path))

    def write(self, name: str, content: str) -> Path:
        """Write a file that only its owner can read, whole or not at all; return its path."""
        temporary = self.path / f".{name}"
        temporary.touch(mode=0o600)
        temporary.write_text(content)
        return temporary.replace(self.path / name)

    def publish(self, environment: Environment) -> None:
        """Make the environment known to `read_environment`."""
        self.write(_ENVIRONMENT, json.dumps(asdict(environment)))

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if _OWN_FILE.fullmatch(path.name):
                path.unlink()


def _check_private(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise StateDirectoryError(f"{directory} is not a directory: choose another one")
    if status.st_uid != os.getuid():
        raise StateDirectoryError(f"{directory} belongs to another user: choose another directory")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StateDirectoryError(
            f"{directory} is open to other users: chmod 700 it, or choose another directory"
        )


def _locks(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
