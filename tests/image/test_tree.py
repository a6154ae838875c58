"""The comparison of two file trees sees every difference that it is there to see."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.image_tree import differences, entries, main, report

SECONDS = 1767225600


def make_tree(folder: Path) -> Path:
    (folder / "app/cbor2").mkdir(parents=True)
    (folder / "app/cbor2/decoder.py").write_bytes(b"one")
    (folder / "app/six.py").write_bytes(b"four")
    (folder / "link").symlink_to("app")
    return stamped(folder)


def stamped(folder: Path) -> Path:
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (SECONDS, SECONDS), follow_symlinks=False)
    return folder


def content(folder: Path) -> None:
    (folder / "app/six.py").write_bytes(b"FOUR")


def mode(folder: Path) -> None:
    (folder / "app/six.py").chmod(0o700)


def time(folder: Path) -> None:
    os.utime(folder / "app/six.py", (SECONDS + 1, SECONDS + 1))


def target(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("ap")


def extra(folder: Path) -> None:
    (folder / "app/new").touch()


def missing(folder: Path) -> None:
    (folder / "app/six.py").unlink()


def kind(folder: Path) -> None:
    (folder / "app/six.py").unlink()
    (folder / "app/six.py").mkdir()


def test_equal_trees_have_no_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = make_tree(tmp_path / "left"), make_tree(tmp_path / "right")
    assert list(entries(left)) == ["app", "app/cbor2", "app/cbor2/decoder.py", "app/six.py", "link"]
    assert main(["compare", str(left), str(right)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("change", [content, mode, time, target, extra, missing, kind])
def test_a_change_of_one_file_is_seen(
    tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = make_tree(tmp_path / "left"), make_tree(tmp_path / "right")
    change(right)
    if change is not time:
        stamped(right)
    assert main(["compare", str(left), str(right)]) == 1
    lines = capsys.readouterr().out.splitlines()
    names: dict[object, str] = {target: "link", extra: "app/new"}
    name = names.get(change, "app/six.py")
    assert lines
    assert all(line.endswith(repr(name)) for line in lines)


def test_the_owner_is_compared(tmp_path: Path) -> None:
    tree = entries(make_tree(tmp_path / "tree"))
    other = dict(tree)
    entry = tree["link"]
    other["link"] = type(entry)(entry.mode, "1:1", entry.time, entry.size, entry.content)
    assert differences(tree, other) == [f"- {entry} 'link'", f"+ {other['link']} 'link'"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(".")
    assert list(entries(tmp_path)) == ["loop"]


def test_the_report_adds_up_the_parts(tmp_path: Path) -> None:
    lines = report(entries(make_tree(tmp_path / "tree")))
    assert [line.split() for line in lines] == [
        ["10", "bytes", "3", "files", "the", "whole", "image"],
        ["4", "bytes", "1", "files", "six"],
        ["3", "bytes", "1", "files", "cbor2"],
        ["3", "bytes", "1", "files", "link"],
    ]


def test_a_wrong_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "one"]) == 2
    assert "compare FOLDER FOLDER" in capsys.readouterr().err
