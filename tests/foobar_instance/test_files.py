"""Files are read with a bound, and written whole or not at all."""

import io
import os
import stat
import sys
import tempfile
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


def test_a_file_of_the_longest_length(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_file(path, limit=5) == b"12345"


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"123456")
    with pytest.raises(FileError, match=r"cannot read .*f: longer than 5 bytes"):
        read_file(path, limit=5)


def test_an_endless_file() -> None:
    with pytest.raises(FileError, match="longer than 5 bytes"):
        read_file(Path("/dev/zero"), limit=5)


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


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_can_be_read_by_all(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_file(tmp_path / "f", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert mode(tmp_path / "f") == 0o644
    assert names(tmp_path) == ["f"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old and longer")
    before = path.stat().st_ino
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != before
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_failing_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(FileError, match=r"cannot write .*f: No space left on device"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_all_is_on_disk_before_it_replaces_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    synced: list[tuple[Path, bytes, bytes]] = []

    def fsync(descriptor: int) -> None:
        temporary = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((temporary, temporary.read_bytes(), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(path, b"new")
    ((temporary, new, old),) = synced
    assert (new, old) == (b"new", b"old")
    assert temporary.parent == tmp_path  # a rename is atomic on one file system only
    assert temporary.name.startswith(".foobar-")


def test_an_interrupted_write_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "f", b"new")
    assert names(tmp_path) == []


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*f: it is a folder"):
        write_file(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write .*: No such file or directory"):
        write_file(tmp_path / "missing" / "f", b"new")


def test_where_a_file_can_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "old")
    assert names(tmp_path) == ["old"]


def test_where_a_file_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match=r"cannot write .*: there is no folder .*missing"):
        check_writable(tmp_path / "missing" / "f")
    with pytest.raises(FileError, match=r"cannot write .*: it is a folder"):
        check_writable(tmp_path)
    monkeypatch.chdir(tmp_path)
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    os.chdir(deleted)
    deleted.rmdir()
    with pytest.raises(FileError, match=r"cannot write f: the folder \.: No such file"):
        check_writable(Path("f"))


def test_a_full_disk_is_known_before_something_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))
    with pytest.raises(FileError, match=r"cannot write .*f: the folder .*: No space left on dev"):
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
    with pytest.raises(FileError, match=r"cannot write .*f: it is no regular file"):
        check_writable(path)
    with pytest.raises(FileError, match=r"cannot write .*f: it is no regular file"):
        write_file(path, b"new")
    assert path.lstat() == before
    assert (tmp_path / "target").read_bytes() == b"target"
    assert sorted(names(tmp_path)) == ["f", "target"]


def test_devices_are_left_alone() -> None:
    for device in ("/dev/null", "/dev/stdout"):
        with pytest.raises(FileError, match="it is no regular file"):
            check_writable(Path(device))


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "file" / "f", "Not a directory"),
    ):
        with pytest.raises(FileError, match=rf"cannot write .*: {words}"):
            check_writable(path)


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
