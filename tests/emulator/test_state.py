from __future__ import annotations

from pathlib import Path

import pytest

from emulator.errors import NotUpError, StateDirectoryError
from emulator.state import Environment, StateDirectory, default_directory, read_environment

ENVIRONMENT = Environment(variables={"FOOBAR_X": "it's $HOME `x`"}, unset=["AWS_PROFILE"])


def test_what_it_held_is_gone_at_the_end(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as state:
        path = state.write("kms-ca.pem", "text")
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("text", 0o600)
        assert state.path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir(mode=0o700)
    (directory / "measurements.json").write_text("mine")
    with pytest.raises(StateDirectoryError, match="other files"), StateDirectory(directory):
        pass
    assert (directory / "measurements.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("case", "words"),
    [("open", "open to other users"), ("theirs", "another user"), ("link", "not a directory")],
)
def test_a_directory_that_is_not_private_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, words: str
) -> None:
    directory = tmp_path / case
    if case == "link":
        directory.symlink_to(tmp_path)
    else:
        directory.mkdir(mode=0o700)
    if case == "open":
        directory.chmod(0o701)
    if case == "theirs":
        owner = directory.stat().st_uid
        monkeypatch.setattr("os.getuid", lambda: owner + 1)
    with pytest.raises(StateDirectoryError, match=words), StateDirectory(directory):
        pass
    with pytest.raises(StateDirectoryError, match=words):
        read_environment(directory)


def test_a_second_one_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as first:
        first.write("kms-ca.pem", "text")
        with (
            pytest.raises(StateDirectoryError, match="already up"),
            StateDirectory(tmp_path / "state"),
        ):
            pass
        assert (first.path / "kms-ca.pem").exists()


def test_what_a_killed_one_left_is_cleared_away(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    for name in ("lock", "environment.json", "enclave.sock", "enclave-other.sock", "notes.txt"):
        (directory / name).write_text("{}")
    with pytest.raises(NotUpError):
        read_environment(directory)
    with StateDirectory(directory):
        names = {path.name for path in directory.iterdir()}
    assert names == {"lock", "notes.txt"}
    (directory / "notes.txt").unlink()


@pytest.mark.parametrize(("path", "words"), [("x" * 100, "shorter"), ("no/such", "choose another")])
def test_a_path_that_will_not_do_is_refused(tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises(StateDirectoryError, match=words), StateDirectory(tmp_path / path):
        pass


def test_the_environment_is_read_while_it_is_up(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as state:
        with pytest.raises(NotUpError):
            read_environment(state.path)
        state.publish(ENVIRONMENT)
        assert read_environment(state.path) == ENVIRONMENT
    with pytest.raises(NotUpError, match="python -m emulator up"):
        read_environment(state.path)


def test_the_default_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_directory() == tmp_path / "foobar-emulator"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")  # noqa: S108 - not written to
    monkeypatch.setattr("os.getuid", lambda: 1234)
    assert default_directory() == Path("/tmp/foobar-emulator-1234")  # noqa: S108
