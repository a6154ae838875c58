"""scripts/release, with stand-ins for docker, foobar-instance and the bill of materials."""

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

DOCKER = """#!/bin/sh
echo "docker $*" >>"$CALLS"
case $1 in
image) echo "python@$DIGEST" ;;
run)
    out=$(printf '%s\n' "$@" | sed -n 's|:/out$||p')
    stem=$(printf '%s\n' "$@" | sed -n 's|^STEM=||p')
    echo "aws-nitro-enclaves-cli-1.4" >"$out/$stem.nitro-cli"
    echo image >"$out/$stem.eif"
    printf '{"Measurements": {\n  "PCR0": "%s"}}\n' "$NITRO_PCR0" >"$out/$stem.nitro-cli.json" ;;
esac
"""
INSTANCE = """#!/bin/sh
printf '{"Measurements": {"PCR0": "%s"}}\n' "$MEASURED_PCR0"
"""
SBOM = """#!/bin/sh
echo '{"bomFormat": "CycloneDX"}' >"$1"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, the Dockerfile, a commit, and the stand-ins."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/release", folder / "scripts")
    shutil.copy(ROOT / "Dockerfile.enclave", folder)
    programs = {
        "bin/docker": DOCKER,
        "bin/foobar-instance": INSTANCE,
        "bin/git": "#!/bin/sh\necho 1",
    }
    (folder / "bin").mkdir()
    for name, text in {**programs, "scripts/sbom": SBOM}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def release(checkout: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    defaults = {
        "PATH": f"{checkout}/bin:{os.defpath}",
        "CALLS": str(checkout / "calls"),
        "DIGEST": DIGEST,
        "NITRO_PCR0": PCR0,
        "MEASURED_PCR0": PCR0,
    }
    return subprocess.run(
        [checkout / "scripts/release", out],
        env=defaults | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_leaves_the_image_its_measurements_and_what_it_was_built_from(
    checkout: Path, tmp_path: Path
) -> None:
    result = release(checkout, tmp_path / "out")

    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{STEM}.built-from.txt",
        f"{STEM}.cdx.json",
        f"{STEM}.eif",
        f"{STEM}.measurements.json",
    ]
    assert PCR0 in (tmp_path / "out" / f"{STEM}.measurements.json").read_text()
    built_from = (tmp_path / "out" / f"{STEM}.built-from.txt").read_text().splitlines()
    assert built_from[0] == "commit 1"
    assert built_from[1].endswith(f"-slim-bookworm@{DIGEST}")
    assert built_from[2] == "aws-nitro-enclaves-cli-1.4"


def test_builds_on_the_base_whose_digest_it_publishes(checkout: Path, tmp_path: Path) -> None:
    release(checkout, tmp_path / "out")

    calls = (checkout / "calls").read_text()
    assert f"--build-arg PYTHON_DIGEST={DIGEST} ." in calls


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"NITRO_PCR0": "cd" * 48}, "nitro-cli and foobar-instance measure differ"),
        ({"DIGEST": ""}, "docker gives no digest"),
    ],
)
def test_publishes_nothing_that_it_cannot_stand_for(
    checkout: Path, tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    result = release(checkout, tmp_path / "out", **environment)

    assert result.returncode == 1
    assert reason in result.stderr
    assert not (tmp_path / "out" / f"{STEM}.built-from.txt").exists()
