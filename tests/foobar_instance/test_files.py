"""Files are read with a bound, and written whole or not at all."""

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foobar_instance.errors import FileError
from foobar_instance.files import (
    check_writable,
    read_file,
    read_stdin,
    write_file,
    write_stdout,
)


def test_a_file_is_read_with_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_file(path, limit=5) == b"12345"
    path.write_bytes(b"123456")
    for too_long in (path, Path("/dev/zero")):
        with pytest.raises(FileError, match=r"cannot read .*: longer than 5 bytes"):
            read_file(too_long, limit=5)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*missing: No such file") as caught:
        read_file(tmp_path / "missing", limit=5)
    assert caught.value.exit_code == 1
    with pytest.raises(FileError, match="Is a directory"):
        read_file(tmp_path, limit=5)


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for data, taken in ((b"", b""), (b"12345", b"12345"), (b"1234567", b"123456")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read_stdin(limit=5) == taken


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "expected"), [(0o077, 0o600), (0o022, 0o644)])
def test_a_new_file_gets_the_mode_that_the_umask_allows(
    tmp_path: Path, umask: Callable[[int], int], mask: int, expected: int
) -> None:
    umask(mask)
    write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert mode(tmp_path / "f") == expected
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("old", [0o600, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(
    tmp_path: Path, umask: Callable[[int], int], old: int
) -> None:
    umask(0o022)
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(old)
    write_file(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", old)


def test_an_old_file_can_be_kept_under_another_name(tmp_path: Path) -> None:
    path, kept = tmp_path / "f", tmp_path / "kept"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_file(path, b"new", keep_old_as=kept)
    assert (path.read_bytes(), kept.read_bytes(), mode(kept)) == (b"new", b"old", 0o600)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.threat("17")
def test_a_failing_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    for kept in (None, tmp_path / "kept"):
        with pytest.raises((FileError, KeyboardInterrupt)) as caught:
            write_file(path, b"new", keep_old_as=kept)
        if isinstance(error, OSError):
            assert str(caught.value) == f"cannot write {path}: No space left on device"
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["f"]


def test_content_is_on_disk_before_it_replaces_the_old_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    synced: list[tuple[Path, bytes, bytes]] = []

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((place, b"" if place.is_dir() else place.read_bytes(), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(path, b"new")
    (temporary, new, old), directory = synced
    assert (new, old) == (b"new", b"old")
    assert temporary.parent == tmp_path  # a rename is atomic on one file system only
    assert temporary.name.startswith(".foobar-")
    assert directory == (tmp_path, b"", b"new")


def test_where_a_file_can_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "old")
    assert names(tmp_path) == ["old"]


def test_where_a_file_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    for path, words in (
        (tmp_path / "directory", "it is a directory"),
        (tmp_path / "missing" / "f", "there is no directory .*missing"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "file" / "f", "Not a directory"),
    ):
        with pytest.raises(FileError, match=rf"cannot write .*: {words}"):
            check_writable(path)
        with pytest.raises(FileError, match=r"cannot write "):
            write_file(path, b"new")
    monkeypatch.chdir(tmp_path / "directory")
    (tmp_path / "directory").rmdir()
    with pytest.raises(FileError, match=r"cannot write f: the directory \.: No such file"):
        check_writable(Path("f"))


def test_a_full_disk_is_known_before_something_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(FileError, match=r"cannot write .*f: the directory .*: No space left on"):
        check_writable(tmp_path / "f")


def place(path: Path, kind: str) -> None:
    """Puts something that is no regular file where the file should be."""
    target = path.with_name("target")
    target.write_bytes(b"target")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else path.with_name("nothing"))


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link"])
def test_what_is_no_regular_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f"
    place(path, kind)
    before = path.lstat()
    with pytest.raises(FileError, match=r"cannot write .*f: it is not a regular file"):
        check_writable(path)
    with pytest.raises(FileError, match=r"cannot write .*f: it is not a regular file"):
        write_file(path, b"new")
    assert path.lstat() == before
    assert (tmp_path / "target").read_bytes() == b"target"
    assert sorted(names(tmp_path)) == ["f", "target"]


def test_a_name_of_the_longest_length(tmp_path: Path) -> None:
    path = tmp_path / ("f" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    check_writable(path)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_the_terminal_can_not_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write_stdout("n\xe4\u2713")
    assert raw.getvalue() == b"n\\xe4\\u2713\n"
