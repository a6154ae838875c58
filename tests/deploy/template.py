"""CloudFormation's YAML, with its short intrinsic functions as their long forms."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = ROOT / "deploy/cloudformation.yaml"


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML publishes no types
    """Safe loading, plus the tags that CloudFormation adds to YAML."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    assert isinstance(node, yaml.SequenceNode)
    return {name: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _intrinsic)


def load(text: str) -> dict[str, Any]:
    """The template as CloudFormation sees it."""
    loaded = yaml.load(text, _Loader)  # noqa: S506 # a subclass of SafeLoader
    assert isinstance(loaded, dict)
    return loaded


def substitute(text: str, values: Mapping[str, str]) -> str:
    """What `Fn::Sub` makes of a text; a variable without a value is a KeyError."""
    filled = re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: values[found[1]], text)
    return filled.replace("${!", "${")
