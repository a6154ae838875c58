"""A stand-in for the AWS CLI: holds a command to botocore's model of the service it asks."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jmespath
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StructureShape

GLOBAL = {"output", "query", "region"}
# What the AWS CLI has beside a service's operations and their parameters, and what it fills in.
DEPLOY = {"stack-name", "template-file", "capabilities", "parameter-overrides"}
RULE = {"protocol", "port", "cidr"}
OWN = {"revoke-security-group-egress": RULE, "authorize-security-group-egress": RULE}
FILLED_IN = {"min-count", "max-count"}
ANSWERS = {"Description": "Locked to the enclave image"}
DEPTH = 6


def main(service: str, operation: str, *words: str) -> None:
    """Exit with a message if there is no such command; print what its --query selects."""
    given = dict(options(words))
    if operation == "deploy":
        check_options(set(given), DEPLOY, DEPLOY)
        return
    if operation == "wait":
        waiters = Loader().load_service_model(service, "waiters-2")["waiters"]
        waiter = {xform_name(name, "-"): name for name in waiters}[words[0]]
        operation = xform_name(waiters[waiter]["operation"], "-")
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    known = model.operation_model(names[operation])
    takes = known.input_shape
    assert takes is not None
    members = {xform_name(name, "-"): shape for name, shape in takes.members.items()}
    required = {xform_name(name, "-") for name in takes.required_members} - FILLED_IN
    check_options(set(given), members.keys() | OWN.get(operation, set()) | GLOBAL, required)
    for option, values in given.items():
        for value in values:
            if value.startswith("file://"):
                json.loads(Path(value.removeprefix("file://")).read_text())
            elif option in members and "=" in value:
                check_keys(members[option], value)
    for query in given.get("query", ()):
        found = jmespath.search(query, sample(known.output_shape))
        answer = found if isinstance(found, list) else [found]
        if not answer or None in answer:
            sys.exit(f"{operation} has no {query} in its answer")
        sys.stdout.write("\t".join(map(str, answer)) + "\n")


def options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with its values, which follow it or an equals sign."""
    for part in re.split(r"\0--", "\0".join(("", *words)))[1:]:
        name, *values = re.split(r"(?<=^protocol)=|\0", part)
        yield name, values


def check_options(given: set[str], known: set[str], required: set[str]) -> None:
    """Exit unless all required options are given, and only known ones."""
    if not required <= given <= known:
        sys.exit(f"no such options: {given - known}; missing: {required - given}")


def check_keys(shape: Shape, value: str) -> None:
    """Hold the names in `Name=value,Other={Inner=value}` to the members of a parameter."""
    unknown = set(re.findall(r"(?:^|[,{])(\w+)=", value)) - set(
        re.findall(r"'(\w+)':", str(sample(shape)))
    )
    if unknown:
        sys.exit(f"{shape.name} has no {unknown}")


def sample(shape: Shape | None, name: str = "", depth: int = DEPTH) -> object:
    """Return a value of a shape: what an answer might hold."""
    if depth and isinstance(shape, StructureShape):
        return {key: sample(member, key, depth - 1) for key, member in shape.members.items()}
    if depth and isinstance(shape, ListShape):
        return [sample(shape.member, name, depth - 1)]
    return ANSWERS.get(name, f"some-{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
