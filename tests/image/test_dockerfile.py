"""The image's recipe: what it is made from is pinned, and no more than that goes in."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile.enclave").read_text())


def sources() -> list[str]:
    """What is copied from this repository, rather than from another stage."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", RECIPE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_base_is_an_exact_tag_with_a_digest_on_top() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=\S+/python:3\.\d+\.\d+-slim-\w+$", RECIPE, re.MULTILINE)
    assert re.findall(r"^FROM (.+)$", RECIPE, re.MULTILINE) == [
        "${PYTHON_IMAGE}${PYTHON_DIGEST:+@}${PYTHON_DIGEST} AS build",
        "scratch",
    ]


def test_every_package_is_checked_against_its_hash() -> None:
    installs = [line for line in RECIPE.splitlines() if '"pip"' in line]
    assert len(installs) == 1
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile"):
        assert f'"{option}"' in installs[0]


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert sorted(sources()) == sorted(line[1:] for line in ignore if line.startswith("!"))
    assert {"foobar_enclave", "foobar_shared"} <= set(sources())
    assert all((ROOT / source).exists() for source in sources())


def test_the_program_is_found_in_the_image_alone() -> None:
    last = RECIPE.rpartition("FROM scratch")[2]
    assert re.search(r'^ENTRYPOINT \[.*"-S", "-P", .*"-m", "foobar_enclave"\]$', last, re.MULTILINE)
    assert re.findall(r"^ENV (.+)$", last, re.MULTILINE) == ["PYTHONPATH=/app"]


def test_the_script_that_builds_and_runs_it_can_be_started() -> None:
    script = ROOT / "tests/image/run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["/bin/sh", "-n", script], check=False).returncode == 0
    wrong = subprocess.run([script, "--wrong"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"usage" in wrong.stderr
