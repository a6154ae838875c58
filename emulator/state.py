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
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from emulator.errors import NotUpError, StateDirectoryError
from foobar_shared.addresses import UnixAddress, parse_address
from foobar_shared.errors import AddressError

_NAME: Final = "foobar-emulator"
_LOCK: Final = "lock"
_ENVIRONMENT: Final = "environment.json"
# What an emulator that was killed may have left, and nothing else.
_OWN_FILE: Final = re.compile(
    r"(?:(?:enclave|relay)(?:-[a-z0-9-]{1,32})?\.sock"
    r"|(?:nitro-root|kms-ca|kms-server)\.pem"
    r"|(?:enclave-[a-z0-9-]{1,32}\.)?measurements\.json"
    r"|environment\.json|lock)"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """What points a program at an emulator: variables to set, and variables to unset."""

    variables: Mapping[str, str]
    unset: Sequence[str]

    def as_shell(self) -> str:
        """Lines for a POSIX shell."""
        lines = [f"unset {name}" for name in self.unset]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return "\n".join(lines) + "\n"

    def applied_to(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` as it is after these lines."""
        kept = {name: value for name, value in base.items() if name not in self.unset}
        return kept | dict(self.variables)


def default_directory() -> Path:
    """The user's own: in XDG_RUNTIME_DIR, else in the directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime, _NAME)
    return Path(tempfile.gettempdir(), f"{_NAME}-{os.getuid()}")


def read_environment(directory: Path) -> Environment:
    """The environment of the emulator that is up in `directory`.

    Raises:
        NotUpError: none is.
        StateDirectoryError: the directory is another user's, or open to others.
    """
    not_up = NotUpError(f"no emulator is up in {directory}: start one with python -m emulator up")
    if not directory.exists():
        raise not_up
    _check_private(directory)
    try:
        if not _is_locked(directory / _LOCK):
            raise not_up
        saved = json.loads((directory / _ENVIRONMENT).read_text())
    except FileNotFoundError:
        raise not_up from None
    return Environment(variables=saved["variables"], unset=saved["unset"])


class StateDirectory:
    """One emulator's directory while the context lasts; what it holds is removed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = -1
        self._remove = False

    def __enter__(self) -> Self:
        self.socket("enclave")  # refuses a path that is too long
        self._remove = self._create()
        _check_private(self.path)
        self._lock = self._acquire()
        self._clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        (self.path / _LOCK).unlink()
        if self._remove:
            with contextlib.suppress(OSError):  # somebody put a file of theirs there
                self.path.rmdir()
        os.close(self._lock)

    def file(self, name: str) -> Path:
        """The path of one of the emulator's own files."""
        if not _OWN_FILE.fullmatch(name):
            raise StateDirectoryError(f"not a name of the emulator's own files: {name!r}")
        return self.path / name

    def socket(self, name: str) -> UnixAddress:
        """The address of a unix socket.

        Raises:
            StateDirectoryError: its path is longer than the system allows.
        """
        path = self.file(f"{name}.sock")
        try:
            parse_address(f"unix:{path}")
        except AddressError:
            raise StateDirectoryError(
                f"{path} is too long for the path of a socket: choose a shorter directory or name"
            ) from None
        return UnixAddress(str(path))

    def write(self, name: str, content: str) -> Path:
        """Write a file that only its owner can read, whole or not at all."""
        path = self.file(name)
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=".")
        with os.fdopen(handle, "w") as file:
            file.write(content)
        Path(temporary).replace(path)
        return path

    def publish(self, environment: Environment) -> None:
        """Make the environment known to `read_environment`."""
        saved = {"variables": dict(environment.variables), "unset": list(environment.unset)}
        self.write(_ENVIRONMENT, json.dumps(saved, indent=2) + "\n")

    def _create(self) -> bool:
        """Whether the directory is ours to remove: new, or left by an emulator that was killed."""
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return False
        except OSError as error:
            raise StateDirectoryError(
                f"cannot create {self.path} ({error.strerror}): choose another directory"
            ) from None
        return True

    def _acquire(self) -> int:
        lock = self.path / _LOCK
        if not self._remove:
            if not lock.exists() and any(self.path.iterdir()):
                raise StateDirectoryError(
                    f"{self.path} holds other files: choose another directory"
                )
            self._remove = lock.exists()
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have removed the file between the two calls.
            if not os.path.samestat(os.fstat(descriptor), lock.stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            raise StateDirectoryError(
                f"an emulator is already up in {self.path}: end it with Ctrl-C, or give this one "
                "another --directory"
            ) from None
        return descriptor

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if _OWN_FILE.fullmatch(path.name) and path.name != _LOCK:
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


def _is_locked(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
