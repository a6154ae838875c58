"""docs/operations.md: the set-up by hand is the template's, and the errors are the programs'."""

import json
import re
from typing import Any

from tests.deploy.template import ROOT, TEMPLATE, load

PAGE = (ROOT / "docs/operations.md").read_text()
COMMANDS = re.sub(r" \\\n\s+", " ", PAGE)


def shown_policy(name: str) -> object:
    (text,) = re.findall(rf"cat >{name} <<'END'\n(.*?)\nEND\n", PAGE, re.DOTALL)
    policy: object = json.loads(text)
    return policy


def role() -> dict[str, Any]:
    found = load(TEMPLATE.read_text())["Resources"]["Role"]["Properties"]
    assert isinstance(found, dict)
    return found


def test_the_role_by_hand_may_do_what_the_templates_may() -> None:
    (policy,) = role()["Policies"]
    assert shown_policy("create-key.json") == policy["PolicyDocument"]
    trust = json.dumps(role()["AssumeRolePolicyDocument"])
    service = '{"Fn::Sub": "ec2.${AWS::URLSuffix}"}'
    assert service in trust
    assert shown_policy("trust.json") == json.loads(trust.replace(service, '"ec2.amazonaws.com"'))
    assert f"--policy-name {policy['PolicyName']}" in PAGE
    assert f"ROLE={role()['RoleName']}\n" in PAGE


def test_the_instance_by_hand_is_the_templates() -> None:
    instance = load(TEMPLATE.read_text())["Resources"]["Instance"]["Properties"]
    options = ",".join(f"{key}={value}" for key, value in instance["MetadataOptions"].items())
    assert f"--metadata-options {options} " in COMMANDS
    assert "--enclave-options Enabled=true " in COMMANDS
    image = instance["ImageId"]["Fn::Sub"].strip("{}").removesuffix("${Architecture").rstrip("$")
    assert f"--image-id {image}x86_64 " in COMMANDS


def test_the_packages_by_hand_are_the_templates() -> None:
    script = load(TEMPLATE.read_text())["Resources"]["Instance"]["Properties"]["UserData"]
    lines = r"dnf install -y (aws-nitro-enclaves-cli .*?python3\.11-pip)\n"
    (there,) = re.findall(lines, script["Fn::Base64"]["Fn::Sub"], re.DOTALL)
    (here,) = re.findall(lines, PAGE, re.DOTALL)
    assert here.split() == there.split()


def test_every_parameter_is_explained() -> None:
    for name in load(TEMPLATE.read_text())["Parameters"]:
        assert f"`{name}`" in PAGE, name


def test_the_explained_errors_are_the_programs() -> None:
    sources = [*ROOT.glob("foobar_instance/*.py"), ROOT / "build-and-run-enclave.sh"]
    texts = re.sub(r'"\s*f?"', "", " ".join(path.read_text() for path in sources))
    for error in (
        "no instance metadata service answers",
        "this instance has no IAM role",
        "the instance's role has no credentials",
        "the relay may not listen",
        "KMS can't be asked",
        "docker does not answer",
        "no measurement pins the enclave",
        "no enclave answers at",
        "the relay can't listen at",
    ):
        assert error in PAGE, error
        assert error in texts, error
    description = "Locked to the enclave image"
    assert f'f"{description} ' in (ROOT / "foobar_enclave/create_key.py").read_text()
    assert f'grep "{description}"' in PAGE
