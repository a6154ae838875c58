"""The options that several commands share, and what click needs to know of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    import os
    from pathlib import Path

PREFIX: Final = "FOOBAR"

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path; `pathlib` is loaded only where one is given, which is not for --help."""

    def coerce_path_result(self, value: str | os.PathLike[str]) -> Path:
        """The `Path` to what click has read."""
        from pathlib import Path

        return Path(value)


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option that can come from the environment as `FOOBAR_` and its kebab-case name."""
    long_name = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = f"{PREFIX}_{long_name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, envvar=variable, show_envvar=True, **settings)


def path_option(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option that takes a path."""
    return option(*names, type=PathType(), **settings)


def attestation_option(function: F) -> F:
    """Where the key's attestation is."""
    return path_option(
        "--attestation-path",
        "--attestationPath",
        "attestation_path",
        default="attestation.out",
        show_default=True,
        help="The key's attestation document.",
    )(function)


def partition_option(function: F) -> F:
    """Which of AWS's partitions."""
    return option(
        "--partition",
        type=click.Choice(["aws", "aws-us-gov"]),
        default="aws",
        show_default=True,
        help="Which of the packaged AWS roots to trust.",
    )(function)


def trust_options(function: F) -> F:
    """Root and measurements: what a command trusts."""
    options = (
        path_option(
            "--root-path",
            "--rootPath",
            "root_path",
            help="Root certificate (PEM) to trust instead of AWS's packaged one.",
        ),
        partition_option,
        path_option(
            "--measurements",
            help="Expected PCRs: the JSON that nitro-cli build-enclave prints. "
            "[default: ./foobar-enclave.measurements.json, if there]",
        ),
        option("--pcr0", metavar="HEX", help="Expected PCR0, 96 hexadecimal digits."),
        option("--pcr", "pcrs", metavar="N=HEX", multiple=True, help="A further expected PCR."),
        click.option("--trust-any-enclave", is_flag=True, help="Compare no measurement (warns)."),
        click.option("--allow-debug", is_flag=True, help="Accept enclaves in debug mode (warns)."),
    )
    return functools.reduce(lambda wrapped, wrap: wrap(wrapped), reversed(options), function)


def enclave_option(function: F) -> F:
    """Where the enclave is."""
    return option(
        "--enclave",
        default="vsock:16:1000",
        show_default=True,
        metavar="ADDRESS",
        help="Where the enclave listens: vsock:CID:PORT or unix:PATH.",
    )(function)


def verbosity_options(function: F) -> F:
    """How much is told on standard error."""
    quiet = option("-q", "--quiet", is_flag=True, help="Tell nothing but warnings and errors.")
    verbose = option("-v", "--verbose", is_flag=True, help="Log what happens in detail.")
    return quiet(verbose(function))
