"""The CloudFormation template: least privilege, nothing in, IMDSv2 only, enclaves on."""

import re
import shutil
import subprocess
from typing import Any

import pytest

from foobar_instance.cli import cli
from foobar_shared.addresses import ENCLAVE, RELAY
from tests.deploy.template import ROOT, TEMPLATE, load, substitute

ROLE = "aws-nitro-enclave-foobar-iam-role"
PARAMETERS = {
    "AWS::StackName": "foobar",
    "AWS::Region": "us-east-1",
    "AWS::URLSuffix": "amazonaws.com",
    "RepositoryUrl": "https://example.com/owner/foobar.git",
    "Revision": "v1.0.0",
    "EnclaveMemoryMiB": "512",
    "EnclaveProcessors": "2",
}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return load(TEMPLATE.read_text())


def properties(template: dict[str, Any], name: str) -> dict[str, Any]:
    found = template["Resources"][name]["Properties"]
    assert isinstance(found, dict)
    return found


def user_data(template: dict[str, Any]) -> str:
    return substitute(
        properties(template, "Instance")["UserData"]["Fn::Base64"]["Fn::Sub"], PARAMETERS
    )


def test_the_role_may_create_such_keys_as_the_enclave_makes_and_nothing_else(
    template: dict[str, Any],
) -> None:
    (policy,) = properties(template, "Role")["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement == {
        "Sid": "CreateOnlySuchKeys",
        "Effect": "Allow",
        "Action": "kms:CreateKey",
        "Resource": "*",
        "Condition": {
            "StringEquals": {
                "kms:KeySpec": "ECC_NIST_P256",
                "kms:KeyUsage": "KEY_AGREEMENT",
                "kms:KeyOrigin": "AWS_KMS",
            },
            "Bool": {
                "kms:BypassPolicyLockoutSafetyCheck": "true",
                "kms:MultiRegion": "false",
            },
        },
    }


def test_the_conditions_are_what_the_enclave_sends(template: dict[str, Any]) -> None:
    (policy,) = properties(template, "Role")["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    conditions = statement["Condition"]
    sent = (ROOT / "foobar_enclave/kms.py").read_text()
    for key, value in conditions["StringEquals"].items():
        member = {"kms:KeyOrigin": "Origin"}.get(key, key.removeprefix("kms:"))
        assert f'{member}="{value}",' in sent
    for key, value in conditions["Bool"].items():
        assert f"{key.removeprefix('kms:')}={value.title()}," in sent


def test_the_role_is_for_ec2_and_its_only_managed_policy_is_session_manager(
    template: dict[str, Any],
) -> None:
    role = properties(template, "Role")
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust == {
        "Effect": "Allow",
        "Principal": {"Service": {"Fn::Sub": "ec2.${AWS::URLSuffix}"}},
        "Action": "sts:AssumeRole",
    }
    managed = [{"Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"}]
    assert role["ManagedPolicyArns"] == managed


def test_role_and_profile_have_the_name_that_the_command_line_expects(
    template: dict[str, Any],
) -> None:
    (option,) = [p for p in cli.commands["create-key"].params if p.name == "role"]
    assert option.default == ROLE
    role = properties(template, "Role")
    assert role["RoleName"] == ROLE
    assert "Path" not in role  # the key policy names the role without one
    profile = properties(template, "InstanceProfile")
    assert profile == {"InstanceProfileName": {"Ref": "Role"}, "Roles": [{"Ref": "Role"}]}
    assert properties(template, "Instance")["IamInstanceProfile"] == {"Ref": "InstanceProfile"}


def test_nothing_comes_in_and_only_https_goes_out(template: dict[str, Any]) -> None:
    group = properties(template, "SecurityGroup")
    assert group["SecurityGroupIngress"] == []
    ports = {
        (rule["IpProtocol"], rule["FromPort"], rule["ToPort"])
        for rule in group["SecurityGroupEgress"]
    }
    assert ports == {("tcp", 443, 443)}
    kinds = [resource["Type"] for resource in template["Resources"].values()]
    assert sorted(kinds) == [  # no rule, network interface or key pair beside it
        "AWS::EC2::Instance",
        "AWS::EC2::SecurityGroup",
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::Role",
    ]
    instance = properties(template, "Instance")
    assert instance["SecurityGroupIds"] == [{"Ref": "SecurityGroup"}]
    assert "KeyName" not in instance


def test_the_instance_runs_enclaves_and_gives_metadata_to_itself_only(
    template: dict[str, Any],
) -> None:
    instance = properties(template, "Instance")
    assert instance["EnclaveOptions"] == {"Enabled": True}
    assert instance["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    (disk,) = instance["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True
    assert disk["Ebs"]["DeleteOnTermination"] is True


def test_every_reference_is_defined(template: dict[str, Any]) -> None:
    defined = {*template["Parameters"], *template["Resources"], *template["Conditions"]}
    text = TEMPLATE.read_text()
    named = set(re.findall(r"!Ref ([A-Za-z:]+)", text))
    named |= set(re.findall(r"\$\{([A-Za-z:]+)\}", text))
    assert {name for name in named if not name.startswith("AWS::")} <= defined


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("RepositoryUrl", "https://example.com/a/b.git", "https://example.com/';reboot;'"),
        ("RepositoryUrl", "https://example.com/~a/b", "http://example.com/a"),
        ("Revision", "v1.2.3", "--upload-pack=x"),
        ("Revision", "feature/x", "$(reboot)"),
        ("InstanceType", "m7g.2xlarge", "m7g"),
        ("InstanceType", "", "'"),
    ],
)
def test_parameters_can_not_break_out_of_the_script(
    template: dict[str, Any], parameter: str, good: str, bad: str
) -> None:
    pattern = template["Parameters"][parameter]["AllowedPattern"]
    assert re.fullmatch(pattern, good)
    assert not re.fullmatch(pattern, bad)


def test_user_data_is_a_script_that_reports_how_it_ended(template: dict[str, Any]) -> None:
    script = user_data(template)
    assert script.startswith("#!/bin/bash\nset -euo pipefail\n")
    assert "trap 'signal \"$?\"' EXIT\n" in script
    assert template["Resources"]["Instance"]["CreationPolicy"]["ResourceSignal"]
    bash = shutil.which("bash")
    assert bash
    checked = subprocess.run(
        [bash, "-n"], input=script, capture_output=True, text=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_user_data_uses_files_that_this_project_has(template: dict[str, Any]) -> None:
    script = user_data(template)
    named = set(re.findall(r"(?:scripts|requirements|deploy)/[\w.*-]+", script))
    assert named == {
        "scripts/venv",
        "requirements/runtime.txt",
        "deploy/foobar-*.service",
        "deploy/foobar-*.timer",
    }
    for pattern in named:
        assert list(ROOT.glob(pattern))


def test_user_data_configures_the_allocator_as_the_enclave_is_run(
    template: dict[str, Any],
) -> None:
    script = user_data(template)
    (line,) = re.findall(
        r"printf 'memory_mib: .*?/etc/nitro_enclaves/allocator.yaml", script, re.DOTALL
    )
    assert "'512' '2'" in line
    defaults = {name: p.get("Default") for name, p in template["Parameters"].items()}
    build = (ROOT / "build-and-run-enclave.sh").read_text()
    assert f"\nmemory={defaults['EnclaveMemoryMiB']}\n" in build
    assert f"\ncpus={defaults['EnclaveProcessors']}\n" in build


def unit(name: str) -> str:
    return (ROOT / "deploy" / name).read_text()


def test_the_units_use_the_places_that_the_programs_do() -> None:
    relay = unit("foobar-relay.service")
    assert f"-m proxy --listen {RELAY} --to ${{FOOBAR_KMS}} --allow-cid {ENCLAVE.cid}\n" in relay
    enclave = unit("foobar-enclave.service")
    assert f"--enclave-cid {ENCLAVE.cid} " in enclave
    build = (ROOT / "build-and-run-enclave.sh").read_text()
    (name,) = re.findall(r"^name=(.+)$", build, re.MULTILINE)
    assert enclave.count(f"--enclave-name {name}") == 3
    assert f"/opt/foobar/{name}.eif " in enclave


def test_the_relay_runs_with_no_more_than_it_needs() -> None:
    relay = unit("foobar-relay.service").splitlines()
    for setting in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_VSOCK AF_INET AF_INET6 AF_UNIX",
    ):
        assert setting in relay
    # The kernel asks for the capability in the first user namespace.
    assert not [line for line in relay if line.startswith("PrivateUsers=")]


def test_the_check_is_the_command_and_runs_beside_the_files_that_it_reads() -> None:
    check = unit("foobar-enclave-check.service").splitlines()
    assert "WorkingDirectory=/opt/foobar" in check
    assert "ExecStart=/opt/foobar/.venvs/runtime/bin/foobar-instance check" in check
    assert "DynamicUser=yes" in check
    assert "check" in cli.commands


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "deploy").glob("foobar-*")))
def test_systemd_accepts_the_units(name: str) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    checked = subprocess.run(
        [program, "verify", ROOT / "deploy" / name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if name in line]
    # The programs are on the instance, not here.
    assert [line for line in complaints if "is not executable" not in line] == []
