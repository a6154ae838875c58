"""Files: read with a bound, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from foobar_instance.errors import FileError
from foobar_instance.terminal import Progress

MAX_DOCUMENT: Final = 64 * 1024
"""What is read and written of an attestation document; genuine ones have 4 to 8 KB."""


def read_file(path: Path, *, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        FileError: it can't be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise FileError(f"cannot read {path}: longer than {limit} bytes")
    return data


def read_stdin(what: str = "the input", *, limit: int) -> bytes:
    """Return standard input to its end; of more than `limit` bytes, the first `limit` + 1.

    In a terminal, tell that `what` is awaited.

    Raises:
        FileError: it is closed, or can't be read.
    """
    stream = _open_stdin(what)
    try:
        return stream.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot read standard input: {error.strerror}") from error


def stdin_lines(*, limit: int) -> Iterator[bytes]:
    """Yield each line of standard input without its line feed, in constant memory.

    A line of more than `limit` bytes is cut to its first `limit` + 1, so that it shows as too long.

    Raises:
        FileError: it is closed, or can't be read.
    """
    stream = _open_stdin("lines")
    try:
        while line := stream.readline(limit + 1):
            rest = line
            while not rest.endswith(b"\n") and (rest := stream.readline(limit + 1)):
                pass
            yield line.removesuffix(b"\n")
    except OSError as error:
        raise FileError(f"cannot read standard input: {error.strerror}") from error


def _open_stdin(what: str) -> BinaryIO:
    if sys.stdin is None:  # the shell's <&-
        raise FileError("cannot read standard input: it is closed")
    if sys.stdin.isatty():
        Progress().note(f"reading {what} from the terminal; end with Ctrl-D")
    return sys.stdin.buffer


def write_stdout(text: str) -> None:
    """Print a result, and make sure that it has left this program.

    Raises:
        FileError: standard output is closed or full.
        BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout is None:  # the shell's >&-
        raise FileError("cannot write standard output: it is closed")
    # Characters that the terminal's encoding lacks are shown as escapes.
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"cannot write standard output: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Check that `write_file` can succeed, before something is done that needs it.

    Raises:
        FileError: the directory is missing or takes no file, or something that is not a regular
            file is in the file's place.
    """
    _existing(path)
    directory = path.parent
    if not directory.is_dir():
        raise FileError(f"cannot write {path}: there is no directory {directory}")
    temporary = _temporary(directory)
    # Tried, because permissions say nothing about a full disk or a deleted directory.
    try:
        temporary.write_bytes(bytes(MAX_DOCUMENT))
    except OSError as error:
        raise FileError(
            f"cannot write {path}: the directory {directory}: {error.strerror}"
        ) from error
    finally:
        _remove(temporary)


def write_file(path: Path, data: bytes, *, keep_old_as: Path | None = None) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    A new file gets the mode that the umask allows; a file that is replaced passes on its mode. File
    and name are on the disk when this returns.

    Args:
        path: the file.
        data: its new content.
        keep_old_as: the new name of an existing file, instead of replacing it.

    Raises:
        FileError: it can't be written; what was there before is still there.
    """
    old = None if keep_old_as else _existing(path)
    temporary = _temporary(path.parent)
    try:
        with temporary.open("xb") as file:
            if old is not None:
                _take_over(file.fileno(), old)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep_old_as:
            path.rename(keep_old_as)
        temporary.replace(path)
        _sync_directory(path.parent)  # the name is in it, not in the file
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    finally:
        _remove(temporary)


def _temporary(directory: Path) -> Path:
    # A short name: the file's own may be as long as the file system allows.
    return directory / f".foobar-{os.urandom(8).hex()}"


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # mostly because it is in its place, or never came to be
        temporary.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems of a network can't
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_over(descriptor: int, old: os.stat_result) -> None:
    """Give a file the owner and mode of the one that it replaces."""
    with contextlib.suppress(PermissionError):  # only root may give files away
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _existing(path: Path) -> os.stat_result | None:
    """Return the status of the regular file at `path`, or None where there is nothing.

    Replacing destroys a device and detaches a link: as root, even /dev/null or /dev/stdout.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"cannot write {path}: it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"cannot write {path}: it is not a regular file, so name another")
    return status
