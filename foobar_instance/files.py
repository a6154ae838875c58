"""Files: read with a bound, written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from foobar_instance.errors import FileError

PUBLIC_MODE: Final = 0o644

_PREFIX: Final = ".foobar-"
_ROOM: Final = 64 * 1024  # bytes; more than any attestation document has


def read_file(path: Path, *, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

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


def read_stdin(*, limit: int) -> bytes:
    """Standard input to its end, or `limit` + 1 bytes of it where it has more.

    Raises:
        FileError: it is closed, or can't be read.
    """
    if sys.stdin is None:  # the shell's <&-
        raise FileError("cannot read standard input: it is closed")
    try:
        return sys.stdin.buffer.read(limit + 1)
    except OSError as error:
        raise FileError(f"cannot read standard input: {error.strerror}") from error


def write_stdout(text: str) -> None:
    """Print a result, and see that it has left this program.

    Raises:
        FileError: standard output is closed or full.
        BrokenPipeError: whoever read it has gone.
    """
    if sys.stdout is None:  # the shell's >&-
        raise FileError("cannot write standard output: it is closed")
    # What a terminal of another encoding can't show is shown as its escape.
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
    """Whether `write_file` has a chance, asked before something is done that needs it.

    Raises:
        FileError: the folder is missing or takes no file, or something that is no regular file is
            in the file's place.
    """
    import tempfile  # which loads shutil and compressors: nothing that reading needs

    _check_replaceable(path)
    folder = path.parent
    if not folder.is_dir():
        raise FileError(f"cannot write {path}: there is no folder {folder}")
    try:
        # Tried, not asked: a full disk or a folder that was deleted meanwhile permits everything.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_PREFIX) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError as error:
        raise FileError(f"cannot write {path}: the folder {folder}: {error.strerror}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a public file atomically: a reader sees the old content or the new, never a part.

    Raises:
        FileError: it can't be written; what was there before is still there.
    """
    import tempfile

    _check_replaceable(path)
    temporary: Path | None = None
    try:
        # The name does not grow with the file's, which may be as long as the folder takes.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PREFIX, delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), PUBLIC_MODE)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    """Replacing destroys a device and detaches a link: as root, even /dev/null or /dev/stdout."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path}: it is a folder")
    if not stat.S_ISREG(mode):
        raise FileError(f"cannot write {path}: it is no regular file, so name another")
