"""build-and-run-enclave.sh, with stand-ins for nitro-cli and docker on PATH."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from foobar_instance.attestation import Measurements

ROOT = Path(__file__).parent.parent
PCR0 = "ab" * 48
MEASUREMENTS = json.dumps({"Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": PCR0}})

NITRO_CLI = """#!/bin/sh
echo "nitro-cli $*" >>"$CALLS"
case $1 in
"$BROKEN") echo "[ E29 ] Ioctl failure" >&2; exit 1 ;;
describe-enclaves) printf '%s' "$RUNNING" ;;
build-enclave)
    head -c "${EIF_BYTES:-1000}" "${EIF:-/dev/zero}" >foobar-enclave.eif
    printf '%s' "$PRINTED"
    ;;
esac
"""
DOCKER = """#!/bin/sh
echo "docker $*" >>"$CALLS"
[ "$1" != "$BROKEN_DOCKER" ]
"""


@dataclass(frozen=True)
class Host:
    """A machine on which the script runs: its folder, its PATH and what it has."""

    folder: Path

    @property
    def saved(self) -> Path:
        return self.folder / "foobar-enclave.measurements.json"

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        defaults = {
            "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            "CALLS": str(self.folder / "calls"),
            "RUNNING": "[]",
            "PRINTED": MEASUREMENTS,
            "BROKEN": "nothing",
            "BROKEN_DOCKER": "nothing",
            "FOOBAR_ALLOCATOR_CONFIG": str(self.folder / "allocator.yaml"),
            "FOOBAR_NITRO_DEVICE": "/dev/null",
        }
        return subprocess.run(
            [self.folder / "build-and-run-enclave.sh", *options],
            env=defaults | environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    shutil.copy(ROOT / "build-and-run-enclave.sh", tmp_path)
    (tmp_path / "bin").mkdir()
    for name, text in {"nitro-cli": NITRO_CLI, "docker": DOCKER}.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "allocator.yaml").write_text("---\nmemory_mib: 512 # MiB\ncpu_count: 2\n")
    return Host(tmp_path)


RUN = (
    "nitro-cli run-enclave --eif-path foobar-enclave.eif --enclave-name foobar-enclave"
    " --enclave-cid 16 --memory 512 --cpu-count 2"
)


def test_builds_measures_and_runs(host: Host) -> None:
    result = host.run()
    assert result.returncode == 0, result.stderr
    assert host.calls() == [
        "docker info",
        "nitro-cli describe-enclaves",
        "docker build --file Dockerfile.enclave --tag foobar-enclave --build-arg PYTHON_DIGEST= .",
        "nitro-cli build-enclave --docker-uri foobar-enclave --output-file foobar-enclave.eif",
        RUN,
        "nitro-cli describe-enclaves",
    ]
    assert Measurements.from_nitro_cli_json(host.saved).pcrs == {0: bytes.fromhex(PCR0)}
    assert "create-key" in result.stderr


def test_terminates_only_its_own_enclave(host: Host) -> None:
    other = '[{"EnclaveName": "other", "EnclaveCID": 17}]'
    assert host.run(RUNNING=other).returncode == 0
    assert not any("terminate" in call for call in host.calls())
    ours = '[{"EnclaveName": "other"}, {"EnclaveName": "foobar-enclave"}]'
    assert host.run(RUNNING=ours).returncode == 0
    terminations = [call for call in host.calls() if "terminate" in call]
    assert terminations == ["nitro-cli terminate-enclave --enclave-name foobar-enclave"]


def test_terminates_all_if_told(host: Host) -> None:
    assert host.run("--terminate-all").returncode == 0
    assert "nitro-cli terminate-enclave --all" in host.calls()


def test_debug_mode_warns_and_attaches(host: Host) -> None:
    result = host.run("--debug")
    assert result.returncode == 0
    assert f"{RUN} --debug-mode" in host.calls()
    assert host.calls()[-1] == "nitro-cli console --enclave-name foobar-enclave"
    assert "PCR0 to PCR2 are zero" in result.stderr


def test_memory_and_processors(host: Host) -> None:
    (host.folder / "allocator.yaml").write_text("memory_mib: 2048\ncpu_count: 4\n")
    assert host.run("--memory", "1024", "--cpu-count", "4").returncode == 0
    assert RUN.replace("512", "1024").replace("count 2", "count 4") in host.calls()


def test_builds_on_the_base_of_a_digest(host: Host) -> None:
    digest = f"sha256:{'0a' * 32}"
    assert host.run("--python-digest", digest).returncode == 0
    (build,) = [call for call in host.calls() if call.startswith("docker build")]
    assert f"--build-arg PYTHON_DIGEST={digest} ." in build


@pytest.mark.parametrize(
    ("options", "environment", "reason"),
    [
        ((), {"FOOBAR_NITRO_DEVICE": "/nonexistent"}, "EC2 instance with enclaves enabled"),
        ((), {"FOOBAR_ALLOCATOR_CONFIG": "/nonexistent"}, "nitro-enclaves-allocator"),
        (("--memory", "513"), {}, "sets aside 512 MiB and the enclave takes 513"),
        (("--cpu-count", "4"), {}, "sets aside 2 processors and the enclave takes 4"),
        ((), {"BROKEN_DOCKER": "info"}, "docker does not answer"),
        ((), {"EIF_BYTES": "140000000"}, "needs 535 MiB"),
        ((), {"PRINTED": "{}"}, "no PCR0"),
        ((), {"BROKEN": "build-enclave"}, "E29"),
        ((), {"BROKEN": "run-enclave"}, "E29"),
    ],
)
def test_what_is_missing_is_said(
    host: Host, options: tuple[str, ...], environment: dict[str, str], reason: str
) -> None:
    result = host.run(*options, **environment)
    assert result.returncode == 1
    assert reason in result.stderr
    if "run-enclave" not in environment.values():
        assert not any("run-enclave" in call for call in host.calls())


@pytest.mark.parametrize("program", ["nitro-cli", "docker"])
def test_a_missing_program_is_named(host: Host, program: str) -> None:
    (host.folder / "bin" / program).unlink()
    for tool in ("sh", "dirname", "mktemp", "rm", "sed", "tail", "cat"):
        (host.folder / "bin" / tool).symlink_to(shutil.which(tool) or "")
    result = host.run(PATH=f"{host.folder}/bin")
    assert result.returncode == 1
    assert f"{program} is missing" in result.stderr


@pytest.mark.parametrize("broken", [{"BROKEN": "build-enclave"}, {"PRINTED": "half"}])
def test_old_measurements_stay_where_the_build_fails(host: Host, broken: dict[str, str]) -> None:
    host.saved.write_text("old")
    assert host.run(**broken).returncode == 1
    assert host.saved.read_text() == "old"
    assert not list(host.folder.glob(".*measurements*"))


@pytest.mark.parametrize(
    "options",
    [
        ("--bogus",),
        ("--memory",),
        ("--memory", "lots"),
        ("--cpu-count", "0"),
        ("--python-digest",),
        ("--python-digest", "sha256:00"),
        ("x",),
    ],
)
def test_wrong_usage(host: Host, options: tuple[str, ...]) -> None:
    result = host.run(*options)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert host.calls() == []


def test_help(host: Host) -> None:
    result = host.run("--help")
    assert result.returncode == 0
    assert "--cpu-count N" in result.stdout
    assert host.calls() == []
