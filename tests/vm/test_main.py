import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.images import COUNTED, altered
from tests.vm.parent_root import PROJECT
from tests.vm.programs import LabError, LabUnavailableError, run

PASSES = "def test_passes(): pass\n"


@pytest.mark.parametrize(
    ("tests", "code"),
    [
        (PASSES, 0),
        (f"{PASSES}def test_fails(): assert False\n", 1),
        (f"import pytest\n{PASSES}def test_skips(): pytest.skip()\n", 1),
        (f"import pytest\n{PASSES}@pytest.mark.skip\ndef test_is_skipped(): pass\n", 1),
        (f"import pytest\n{PASSES}@pytest.mark.xfail\ndef test_x(): assert False\n", 1),
        (f"import pytest\npytest.skip(allow_module_level=True)\n{PASSES}", 1),
        ("", 1),
    ],
)
def test_a_run_is_right_only_where_every_test_passed(tmp_path: Path, tests: str, code: int) -> None:
    (tmp_path / "test_first.py").write_text(PASSES)
    (tmp_path / "test_second.py").write_text(tests)
    script = "import sys; from tests.vm.__main__ import run_scenario; "
    script += "sys.exit(run_scenario(sys.argv[1:]))"
    arguments = [f"--rootdir={tmp_path}", f"{tmp_path / 'test_second.py'}"]
    if tests:
        arguments.append(f"{tmp_path / 'test_first.py'}")
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=PROJECT, check=False)
    assert done.returncode == code


def test_ordinary_runs_do_not_collect_the_scenario() -> None:
    listing = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*listing, "tests/vm"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/vm/test_main.py::" in done.stdout
    assert "tests/vm/scenario" not in done.stdout


def test_the_altered_image_differs_in_one_byte() -> None:
    image = b"before\n" + COUNTED[0] + b"\nafter"
    other = altered(image)
    assert [(a, b) for a, b in zip(image, other, strict=True) if a != b] == [(ord("a"), ord("e"))]
    for wrong in (other, image + image):
        with pytest.raises(LabError, match="has not one line"):
            altered(wrong)


@pytest.mark.parametrize(("code", "error"), [(77, LabUnavailableError), (1, LabError)])
def test_a_program_that_fails_is_an_error_of_one_line(code: int, error: type[LabError]) -> None:
    script = f"echo W: odd >&2; echo E: no archive >&2; echo more >&2; exit {code}"
    with pytest.raises(LabError, match=r"^cannot try it: E: no archive$") as raised:
        run(["sh", "-c", script], doing="try it", seconds=60)
    assert raised.type is error


def test_a_program_that_takes_too_long_may_clean_up(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    script = f"trap 'kill $!; touch {cleaned}; exit 143' TERM; sleep 1000 & wait"
    with pytest.raises(LabError, match="cannot try it: not done in 1 s"):
        run(["sh", "-c", script], doing="try it", seconds=1)
    assert cleaned.exists()
