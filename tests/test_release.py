"""scripts/image, scripts/rebuild and scripts/release: with stand-ins for docker and measure."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STEM = f"foobar-enclave-{platform.machine()}"
DIGEST = f"sha256:{'0a' * 32}"
PCR0 = "ab" * 48
SECOND_NITRO_CLI = "aws-nitro-enclaves-cli-devel-1.4.2-0.amzn2023"

DOCKER = """#!/bin/sh
echo "docker $*" >>"$CALLS"
case $1 in
image) echo "python@$DIGEST" ;;
create) echo c0ffee ;;
export)
    mkdir -p tree/app tree/etc && echo "${CONTENT-the same}" >tree/app/main.py
    echo library >tree/app/library.so && date +%N >tree/etc/hostname
    tar -c -C tree app etc ;;
run)
    out=$(printf '%s\\n' "$@" | sed -n 's|:/out$||p')
    stem=$(printf '%s\\n' "$@" | sed -n 's|^STEM=||p')
    printf 'aws-nitro-enclaves-cli-1.4.2-0.amzn2023\\nSECOND\\n' >"$out/$stem.nitro-cli"
    echo image >"$out/$stem.eif"
    printf '{"Measurements": {\\n  "PCR0": "%s"}}\\n' "$NITRO_PCR0" >"$out/$stem.nitro-cli.json" ;;
esac
""".replace("SECOND", SECOND_NITRO_CLI)
INSTANCE = """#!/bin/sh
printf '{"Measurements": {"PCR0": "%s"}}\\n' "$MEASURED_PCR0"
"""
SBOM = """#!/bin/sh
echo '{"bomFormat": "CycloneDX"}' >"$1"
"""


def git(checkout: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tagged repository with the scripts and the files that they read, and the stand-ins."""
    folder = tmp_path / "checkout"
    for name in (
        "scripts/image", "scripts/rebuild", "scripts/release", "Dockerfile.enclave",
        "pyproject.toml", "foobar_shared/__init__.py",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "scripts/sbom").write_text(SBOM)
    (folder / "scripts/sbom").chmod(0o755)
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- Something new.\n")
    (tmp_path / "bin").mkdir()
    for name, text in (("docker", DOCKER), ("foobar-instance", INSTANCE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    git(folder, "init", "--quiet")
    (folder / ".gitignore").write_text("/tree/\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "First")
    git(folder, "tag", "v1")
    return folder


def run(
    checkout: Path, script: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    identity = {"NAME": "Test", "EMAIL": "test@example.org"}
    defaults = {
        "PATH": f"{checkout.parent}/bin:{os.defpath}",
        "CALLS": str(checkout.parent / "calls"),
        "DIGEST": DIGEST,
        "NITRO_PCR0": PCR0,
        "MEASURED_PCR0": PCR0,
        **{
            f"GIT_{who}_{key}": identity[key] for who in ("AUTHOR", "COMMITTER") for key in identity
        },
    }
    return subprocess.run(
        [checkout / "scripts" / script, *arguments],
        env=defaults | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_image_leaves_the_measurements_and_what_it_was_built_from(
    checkout: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(checkout, "image", out)

    assert result.returncode == 0, result.stderr
    suffixes = ["built-from.txt", "cdx.json", "eif", "files.txt", "measurements.json"]
    assert sorted(path.name for path in out.iterdir()) == [f"{STEM}.{end}" for end in suffixes]
    assert PCR0 in (out / f"{STEM}.measurements.json").read_text()
    built_from = (out / f"{STEM}.built-from.txt").read_text().splitlines()
    assert built_from[0] == f"commit {git(checkout, 'rev-parse', 'HEAD')}"
    assert built_from[1].endswith(f"-slim-bookworm@{DIGEST}")
    assert built_from[3] == SECOND_NITRO_CLI
    names = [line.split()[2] for line in (out / f"{STEM}.files.txt").read_text().splitlines()]
    assert names == ["./app/library.so", "./app/main.py"]
    calls = (checkout.parent / "calls").read_text()
    assert f"--build-arg PYTHON_DIGEST={DIGEST} ." in calls


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"NITRO_PCR0": "cd" * 48}, "nitro-cli and foobar-instance measure differ"),
        ({"DIGEST": ""}, "docker gives no digest"),
    ],
)
def test_image_publishes_nothing_that_it_cannot_stand_for(
    checkout: Path, tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    result = run(checkout, "image", tmp_path / "out", **environment)

    assert result.returncode == 1
    assert reason in result.stderr
    assert not (tmp_path / "out" / f"{STEM}.built-from.txt").exists()


def test_rebuild_uses_the_same_base_and_nitro_cli_and_says_match(
    checkout: Path, tmp_path: Path
) -> None:
    run(checkout, "image", tmp_path / "out")
    (tmp_path / "calls").unlink()
    result = run(checkout, "rebuild", "v1", tmp_path / "out", DIGEST="sha256:of-a-newer-base")

    assert (result.returncode, result.stdout) == (0, f"MATCH {PCR0}\n"), result.stderr
    calls = (tmp_path / "calls").read_text()
    assert f"--build-arg PYTHON_DIGEST={DIGEST} ." in calls
    assert f"PACKAGES=aws-nitro-enclaves-cli-1.4.2-0.amzn2023 {SECOND_NITRO_CLI}" in calls
    assert "docker pull" not in calls
    assert git(checkout, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize(
    ("content", "answer"), [("changed", "./app/main.py"), ("the same", "no file: the kernel")]
)
def test_rebuild_names_the_first_file_that_differs(
    checkout: Path, tmp_path: Path, content: str, answer: str
) -> None:
    run(checkout, "image", tmp_path / "out")
    other = {"NITRO_PCR0": "cd" * 48, "MEASURED_PCR0": "cd" * 48}
    result = run(checkout, "rebuild", "v1", tmp_path / "out", CONTENT=content, **other)

    assert result.returncode == 1
    assert result.stdout.startswith("DIFFERENT ")
    assert answer in result.stdout


def test_rebuild_refuses_files_of_another_commit(checkout: Path, tmp_path: Path) -> None:
    run(checkout, "image", tmp_path / "out")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "Second")
    git(checkout, "tag", "v2")
    result = run(checkout, "rebuild", "v2", tmp_path / "out")

    assert result.returncode == 1
    assert "the release was built from another" in result.stderr


def test_release_sets_version_changelog_and_tag(checkout: Path) -> None:
    result = run(checkout, "release", "7.8.9")

    assert result.returncode == 0, result.stderr
    assert '\nversion = "7.8.9"\n' in (checkout / "pyproject.toml").read_text()
    assert 'VERSION: Final = "7.8.9"\n' in (checkout / "foobar_shared/__init__.py").read_text()
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [7.8.9] - 20" in changelog
    assert changelog.endswith("\n\n- Something new.\n")
    assert git(checkout, "rev-parse", "v7.8.9^{commit}") == git(checkout, "rev-parse", "HEAD")
    assert git(checkout, "status", "--porcelain") == ""
    again = run(checkout, "release", "7.8.10")
    assert "nothing under Unreleased" in again.stderr


@pytest.mark.parametrize(
    ("version", "change", "reason"),
    [
        ("1.2", "", "usage"),
        ("0.0.1", "", "is older than"),
        ("7.8.9", "new file", "changes that are not committed"),
    ],
)
def test_release_refuses(checkout: Path, version: str, change: str, reason: str) -> None:
    if change:
        (checkout / "new").write_text(change)
    result = run(checkout, "release", version)

    assert result.returncode != 0
    assert reason in result.stderr
    assert git(checkout, "tag") == "v1"
