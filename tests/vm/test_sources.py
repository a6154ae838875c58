from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm import sources
from tests.vm.errors import LabUnavailableError
from tests.vm.sources import Source

DEBIAN = """\
# made by the installer
Types: deb deb-src
URIs: http://mirror.example/debian
# a comment inside
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: http://not.example/

Types: deb
URIs: http://security.example/debian-security http://other.example/debian-security
Suites: bookworm-security
Components: main
"""
OTHERS = """\
deb https://tools.example/apt tools main
deb-src http://mirror.example/debian bookworm main
# deb http://off.example/debian bookworm main
deb [arch=amd64,i386 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian sid main # x
deb
"""


def test_paragraphs_are_read() -> None:
    assert list(sources.deb822(DEBIAN)) == [
        Source(
            "http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main", "contrib")
        ),
        Source("http://security.example/debian-security", ("bookworm-security",), ("main",)),
        Source("http://other.example/debian-security", ("bookworm-security",), ("main",)),
    ]


@pytest.mark.parametrize("change", [("Types: deb deb-src", "Types: deb-src"), ("# made", "\n#")])
def test_only_binary_packages_count(change: tuple[str, str]) -> None:
    found = list(sources.deb822(DEBIAN.replace(*change)))
    assert len(found) == (2 if "Types" in change[0] else 3)


def test_a_paragraph_may_be_turned_off() -> None:
    assert len(list(sources.deb822(DEBIAN.replace("Components", "Enabled: no\nComponents")))) == 0


def test_lines_are_read() -> None:
    assert list(sources.one_line(OTHERS)) == [
        Source("https://tools.example/apt", ("tools",), ("main",)),
        Source("http://mirror.example/debian", ("sid",), ("main",)),
    ]


@given(st.text(), st.sampled_from(["", "Types: deb\nURIs: ", "deb [", "deb "]))
def test_any_text_can_be_read(text: str, start: str) -> None:
    for source in [*sources.one_line(start + text), *sources.deb822(start + text)]:
        assert source.uri


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/others.list").write_text(OTHERS.replace("mirror", "lines"))
    return tmp_path


def test_the_archive_is_that_of_a_debian_suite(apt: Path) -> None:
    assert sources.archive(apt, {}) == "http://lines.example/debian"
    (apt / "sources.list.d/debian.sources").write_text(DEBIAN)
    assert sources.archive(apt, {}) == "http://mirror.example/debian"


def test_the_archive_may_be_in_the_one_old_file(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://old.example/debian stable main\n")
    assert sources.archive(tmp_path, {}) == "http://old.example/debian"


def test_the_variable_goes_first(apt: Path) -> None:
    named = {"FOOBAR_LAB_DEBIAN": "http://named.example/debian"}
    assert sources.archive(apt, named) == "http://named.example/debian"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "deb http://a.example/ubuntu noble main",
        "deb http://a.example/debian bookworm contrib",
        "deb cdrom:[Debian]/ bookworm main",
        "deb cdrom:disc bookworm main",
        "deb http://a.example/debian-security bookworm-security main",
    ],
)
def test_without_an_archive_the_lab_is_not_available(tmp_path: Path, line: str) -> None:
    (tmp_path / "sources.list").write_text(line)
    with pytest.raises(LabUnavailableError, match="names no archive of Debian: set FOOBAR_LAB"):
        sources.archive(tmp_path, {})
