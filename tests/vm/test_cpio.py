import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm import cpio
from tests.vm.cpio import Entry
from tests.vm.errors import LabError

CPIO = shutil.which("cpio")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).filter(
    lambda name: name not in (".", "..", cpio.TRAILER)
)
MODES = st.integers(0, 0o7777)
LEAVES = st.one_of(
    st.builds(lambda data, mode: (stat.S_IFREG | mode, data), st.binary(max_size=40), MODES),
    st.binary(min_size=1, max_size=9).map(lambda target: (stat.S_IFLNK | 0o777, target)),
    MODES.map(lambda mode: (stat.S_IFDIR | mode, b"")),
)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    found: dict[str, Entry] = {}
    folders = [""]
    for name, (mode, data) in draw(st.lists(st.tuples(NAMES, LEAVES), max_size=12)):
        path = f"{draw(st.sampled_from(folders))}{name}"
        if path not in found:
            found[path] = Entry(path, mode, data)
            folders += [f"{path}/"] if stat.S_ISDIR(mode) else []
    return list(found.values())


def parse(archive: bytes) -> list[tuple[Entry, list[int]]]:
    """The entries, each with its header's numbers; what follows the trailer has to be zero."""
    found: list[tuple[Entry, list[int]]] = []
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        numbers = [int(archive[offset + at : offset + at + 8], 16) for at in range(6, 110, 8)]
        name_end = offset + 110 + numbers[11]
        assert archive[name_end - 1] == 0
        name = os.fsdecode(archive[offset + 110 : name_end - 1])
        data_at = name_end + -name_end % 4
        data_end = data_at + numbers[6]
        offset = data_end + -data_end % 4
        if name == "TRAILER!!!":
            assert not any(archive[offset:])
            return found
        found.append((Entry(name, numbers[1], archive[data_at:data_end]), numbers))


@given(entries())
def test_an_archive_is_what_was_put_in(given: list[Entry]) -> None:
    parsed = [entry for entry, _ in parse(cpio.archive(given))]
    assert parsed == sorted(given, key=lambda entry: entry.name)


@given(entries(), st.randoms())
def test_the_order_does_not_matter(given: list[Entry], shuffler: random.Random) -> None:
    shuffled = list(given)
    shuffler.shuffle(shuffled)
    assert cpio.archive(shuffled) == cpio.archive(given)


@given(entries())
def test_archives_may_follow_each_other(given: list[Entry]) -> None:
    assert len(cpio.archive(given)) % 512 == 0


@given(entries())
def test_everything_is_roots_and_of_time_zero(given: list[Entry]) -> None:
    for entry, numbers in parse(cpio.archive(given)):
        owner, group, links, time = numbers[2:6]
        assert (owner, group, time) == (0, 0, 0)
        assert links == (2 if stat.S_ISDIR(entry.mode) else 1)


def test_every_file_is_a_file_of_its_own() -> None:
    parsed = parse(cpio.archive([cpio.file("a", b""), cpio.file("b", b"")]))
    assert len({numbers[0] for _, numbers in parsed}) == 2


@pytest.mark.parametrize(
    "name", ["/etc", "../etc", "a/../b", "a//b", "a/", "./a", "", ".", "..", "TRAILER!!!", "a\0b"]
)
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be a name"):
        cpio.archive([cpio.folder("a"), cpio.file(name, b"")])


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(LabError, match="twice"):
        cpio.archive([cpio.file("a", b""), cpio.file("a", b"")])


@pytest.mark.parametrize("parent", [[], [cpio.file("a", b"")], [cpio.link("a", "b")]])
def test_a_file_without_its_folder_is_refused(parent: list[Entry]) -> None:
    with pytest.raises(LabError, match="no folder"):
        cpio.archive([*parent, cpio.file("a/b", b"")])


def make_tree(root: Path) -> None:
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_bytes(b"#!")
    (root / "bin/sh").chmod(0o755)
    (root / "bin/link").symlink_to("sh//x")


def test_a_tree_is_taken_as_it_is(tmp_path: Path) -> None:
    make_tree(tmp_path / "root")
    (tmp_path / "root").chmod(0o711)
    found = {entry.name: entry for entry in cpio.tree(tmp_path / "root", "there")}
    assert found["there"] == cpio.folder("there", 0o711)
    assert found["there/bin/sh"] == cpio.file("there/bin/sh", b"#!", 0o755)
    assert found["there/bin/link"] == cpio.link("there/bin/link", "sh//x")
    assert len(found) == 4


def test_a_pipe_in_a_tree_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LabError, match="pipe is neither"):
        list(cpio.tree(tmp_path, "there"))


@pytest.mark.skipif(CPIO is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    make_tree(tmp_path / "root")
    archive = cpio.archive(cpio.tree(tmp_path / "root", "there"))
    command = [str(CPIO), "-it", "--quiet"]
    done = subprocess.run(command, input=archive, capture_output=True, check=True)
    assert done.stdout.split() == [b"there", b"there/bin", b"there/bin/link", b"there/bin/sh"]
