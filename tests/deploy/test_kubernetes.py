"""The manifests against the Kubernetes API's schemas; the pod's program on stand-ins."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.template import ROOT

PLACE = ROOT / "deploy/kubernetes"
MANIFESTS = list(yaml.safe_load_all((PLACE / "job.yaml").read_text()))
NITRO_CLI = """#!/bin/sh
echo "$1 $*" | cut -d' ' -f 2- >>"$CALLS"
[ "$1" = run-enclave ] || exit 0
[ -n "${FAILURES-}" ] && [ "$(grep -c run-enclave "$CALLS")" -le "$FAILURES" ] && exit 36
printf '{\\n  "EnclaveID": "i-1-enc7",\\n  "EnclaveCID": 21\\n}\\n'
"""
INSTANCE = """#!/bin/sh
echo "foobar-instance $*" >>"$CALLS"
sed 's/^/result of /'
[ -z "${HANG-}" ] || exec sleep 20
exit "${CODE-0}"
"""


def job() -> dict[str, Any]:
    (found,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Job"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[item["kind"] for item in MANIFESTS])
def test_manifests_match_the_kubernetes_schemas(manifest: dict[str, Any]) -> None:
    for version in ("1.32", "1.37"):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_each_pod_has_an_enclave_and_a_share_of_its_own() -> None:
    spec = job()["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert environment["SHARES"] == str(spec["completions"])
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    assert limits["aws.ec2.nitro/nitro_enclaves"] == "1"
    program = (PLACE / "run-share").read_text()
    assert f"FOOBAR_MEMORY_MIB:-{limits['hugepages-2Mi'].removesuffix('Mi')}}}" in program
    assert f"FOOBAR_PROCESSORS:-{limits['aws.ec2.nitro/nitro_enclaves_cpus']}}}" in program
    assert "--enclave-cid" not in program


def test_the_pod_has_no_rights_that_it_does_not_need() -> None:
    pod = job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_the_image_gets_what_it_copies() -> None:
    recipe = (PLACE / "Dockerfile.parent").read_text()
    copied = {
        word
        for line in re.findall(r"^COPY (.+)$", recipe, re.MULTILINE)
        for word in line.split()[:-1]
    }
    ignore = (PLACE / "Dockerfile.parent.dockerignore").read_text()
    assert copied == set(re.findall(r"^!(.+)$", ignore, re.MULTILINE))
    assert all((ROOT / name).exists() for name in copied - {"foobar-enclave.eif"})


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, text in (("nitro-cli", NITRO_CLI), ("foobar-instance", INSTANCE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "messages").write_text("".join(f"m{number}\n" for number in range(8)))
    return {
        "PATH": f"{tmp_path}:{os.defpath}",
        "CALLS": str(tmp_path / "calls"),
        "FOOBAR_DATA": str(tmp_path),
        "FOOBAR_RETRY_SECONDS": "0",
        "JOB_COMPLETION_INDEX": "0",
        "SHARES": "3",
    }


def share(environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PLACE / "run-share"],
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_shares_are_all_messages(tmp_path: Path, environment: dict[str, str]) -> None:
    for index in ("0", "1", "2"):
        assert share(environment, JOB_COMPLETION_INDEX=index).returncode == 0
    results = [(tmp_path / f"results.{index}").read_text().splitlines() for index in range(3)]
    assert results[1] == ["result of m1", "result of m4", "result of m7"]
    assert sorted(line for lines in results for line in lines) == [
        f"result of m{number}" for number in range(8)
    ]


def test_a_share_uses_its_own_enclave_and_terminates_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert share(environment, FAILURES="2").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len([call for call in calls if call.startswith("run-enclave ")]) == 3
    assert "--lines --ciphertext - --enclave vsock:21:1000" in calls[3]
    assert calls[4:] == ["terminate-enclave --enclave-id i-1-enc7"]


@pytest.mark.parametrize(("code", "kept"), [("3", True), ("1", False)])
def test_results_are_kept_only_when_every_line_has_one(
    tmp_path: Path, environment: dict[str, str], code: str, *, kept: bool
) -> None:
    assert share(environment, CODE=code).returncode == int(code)
    assert [path.name for path in tmp_path.glob("*results*")] == (["results.0"] if kept else [])


def test_sigterm_terminates_the_enclave_at_once(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    started = time.monotonic()
    with subprocess.Popen([PLACE / "run-share"], env=environment | {"HANG": "1"}) as process:
        while not (tmp_path / ".results.0").exists():
            assert time.monotonic() - started < 10
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert "terminate-enclave --enclave-id i-1-enc7" in (tmp_path / "calls").read_text()
    assert not list(tmp_path.glob("*results*"))
