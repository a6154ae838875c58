import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vm import __main__ as command
from tests.vm import accelerators, authorities, lab, preparation
from tests.vm.errors import LabError, LabUnavailableError
from tests.vm.lab import Lab
from tests.vm.packages import Software
from tests.vm.preparation import altered, container

Prepare = Callable[..., tuple[Lab, str]]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The command's folders are made here, and it leaves no variable or signal handler."""
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.setattr(command, "BELOW", below)
    for name in (lab.VARIABLE, accelerators.VARIABLE):
        monkeypatch.setenv(name, "")
    before = signal.getsignal(signal.SIGTERM)
    yield below
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Takes pytest's place: the arguments that it got, and leaves a console."""
    got: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        got.append(arguments)
        folder = Path(os.environ[lab.VARIABLE])
        assert lab.load(folder).images == {}
        assert os.environ[accelerators.VARIABLE] == "tcg"
        (folder / "run/1-parent.console").write_text("the console")
        return 1 if "fail" in arguments else 0

    monkeypatch.setattr(pytest, "main", main)
    return got


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[[Prepare], None]:
    return lambda prepare: monkeypatch.setattr(preparation, "prepare", prepare)


def nothing(folder: Path, *, cache: Path, say: Callable[[str], None]) -> tuple[Lab, str]:
    (folder / "parent").mkdir()
    (folder / "parent.initrd").touch()
    cache.mkdir(exist_ok=True)
    say("nothing was built")
    software = Software(
        qemu=("qemu",), kernel=Path("/k"), modules=(), busybox=Path("/b"), guest=Path("/g")
    )
    made = authorities.create(datetime.now(UTC))
    return Lab(software=software, authorities=made, images={}), "tcg"


def fails_with(error: BaseException) -> Prepare:
    def fails(*_: object, **__: object) -> tuple[Lab, str]:
        raise error

    return fails


def test_all_is_well_and_nothing_is_left(
    prepare: Callable[[Prepare], None],
    scenario: list[list[str]],
    surroundings: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(nothing)
    assert command.main(["-k", "vsock"]) == 0
    assert scenario[0][-3:] == ["-k", "vsock", str(command.SCENARIO)]
    assert list(surroundings.iterdir()) == []
    said = capsys.readouterr().out
    assert "nothing was built" in said
    assert said.endswith("all is well\n")


@pytest.mark.usefixtures("scenario")
def test_logs_are_left_and_named_where_the_scenario_fails(
    prepare: Callable[[Prepare], None], surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(nothing)
    assert command.main(["fail"]) == 1
    (folder,) = surroundings.iterdir()
    left = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert left == [Path("run/1-parent.console")]
    said = capsys.readouterr().out
    assert f"the machines' logs are in {folder}\n" in said
    assert "all is well" not in said


@pytest.mark.usefixtures("scenario")
@pytest.mark.parametrize("arguments", [[], ["fail"]])
def test_all_is_kept_where_that_is_asked_for(
    prepare: Callable[[Prepare], None], tmp_path: Path, arguments: list[str]
) -> None:
    prepare(nothing)
    cache = tmp_path / "cache"
    kept = tmp_path / "k"
    code = command.main(["--keep", str(kept), "--cache", str(cache), *arguments])
    assert code == len(arguments)
    assert (kept / "parent.initrd").exists()
    assert (kept / "run/1-parent.console").exists()
    assert cache.exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LabUnavailableError("no archive"), 77, "python -m tests.vm: cannot run here: no archive"),
        (LabError("no image"), 1, "python -m tests.vm: no image"),
        (KeyboardInterrupt(), 1, "python -m tests.vm: interrupted"),
    ],
)
def test_what_stops_it_is_one_line_and_the_exit_code(
    error: BaseException,
    code: int,
    said: str,
    prepare: Callable[[Prepare], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(fails_with(error))
    assert command.main([]) == code
    assert capsys.readouterr().err == f"{said}\n"


def test_where_the_machine_lacks_something_nothing_is_left(
    prepare: Callable[[Prepare], None], surroundings: Path
) -> None:
    prepare(fails_with(LabUnavailableError("no archive")))
    command.main([])
    assert list(surroundings.iterdir()) == []


def test_a_folder_to_keep_may_not_be_there_or_be_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, said in ((tmp_path, "File exists"), (tmp_path / ("x" * 80), "too long")):
        with pytest.raises(SystemExit, match="2"):
            command.main(["--keep", str(folder)])
        assert said in capsys.readouterr().err


def test_ordinary_runs_do_not_collect_the_scenario() -> None:
    environment = {name: value for name, value in os.environ.items() if name != lab.VARIABLE}
    listing = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*listing, "--ignore-glob=*/vm/test_[!m]*", "tests/vm"],
        cwd=preparation.PROJECT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/vm/test_main.py::" in done.stdout
    assert "tests/vm/scenario" not in done.stdout


class TestContainer:
    @pytest.fixture
    def builder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        script = tmp_path / "tests/image/tree"
        script.parent.mkdir(parents=True)
        monkeypatch.setattr(preparation, "PROJECT", tmp_path)

        def write(text: str) -> None:
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)

        return write

    def test_its_program_is_the_configurations(
        self, builder: Callable[[str], None], tmp_path: Path
    ) -> None:
        config = '{"Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/python", "-m", "x"]}'
        builder(f"mkdir -p $1/tree; echo '{config}' >$1/config.json")
        built = container(tmp_path)
        assert built.tree == tmp_path / "image/tree"
        assert built.command == ("/python", "-m", "x")
        assert built.environment == {"PATH": "/bin", "A": "b=c"}

    def test_why_it_cannot_be_built_here(
        self, builder: Callable[[str], None], tmp_path: Path
    ) -> None:
        builder("echo tree: cannot run here: no buildah >&2; exit 77")
        with pytest.raises(LabUnavailableError, match="tree: cannot run here: no buildah"):
            container(tmp_path)

    def test_why_it_is_not_built(self, builder: Callable[[str], None], tmp_path: Path) -> None:
        builder("echo a step failed >&2; exit 3")
        with pytest.raises(LabError, match="cannot be built: a step failed"):
            container(tmp_path)

    def test_it_has_a_time_limit_and_clears_up(
        self, builder: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preparation, "IMAGE_SECONDS", 0.5)
        cleared = tmp_path / "cleared"
        builder(f"trap 'kill $!; touch {cleared}; exit 143' TERM; sleep 1000 & wait")
        with pytest.raises(LabError, match="not built in 0 s"):
            container(tmp_path)
        assert cleared.exists()


def test_the_altered_enclave_counts_another_letter() -> None:
    code = (preparation.PROJECT / "foobar_enclave/service.py").read_bytes()
    assert preparation.CODE == "app/foobar_enclave/service.py"
    other = altered(code)
    assert [(a, b) for a, b in zip(code, other, strict=True) if a != b] == [(ord("a"), ord("e"))]
    with pytest.raises(LabError, match="has no line"):
        altered(other)
