"""`python -m emulator`: Nitro, KMS and instance metadata for a machine without AWS."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from emulator.errors import EmulatorError
from emulator.state import default_directory, read_environment

if TYPE_CHECKING:
    from emulator.up import Emulator

_CHECK_SECONDS: Final = 0.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where its sockets and files are, mode 0700. [default: one per user]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Nitro, KMS and instance metadata for a machine without AWS.

    Run "up" in one terminal. In another, let the shell read the output of "env"; after that,
    foobar-instance works there as it does on EC2, without sudo.
    """


@main.command(short_help="Start everything, and stay until Ctrl-C.")
@_directory
@click.option("--debug-mode", is_flag=True, help="Run enclaves in debug mode: PCR0 is zero.")
@click.option(
    "--enclaves",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="How many enclaves of the same image to start.",
)
def up(directory: Path | None, *, debug_mode: bool, enclaves: int) -> None:
    """Start everything, and stay until Ctrl-C or SIGTERM; nothing is left behind."""
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    # `env` answers at once, and signals are caught before the second that this import takes.
    from emulator.up import Emulator

    try:
        with Emulator(directory, debug_mode=debug_mode, enclaves=enclaves) as emulator:
            click.echo(_greeting(emulator, directory))
            while not stop.wait(_CHECK_SECONDS):
                emulator.check()
    except EmulatorError as error:
        _fail(error)
    click.echo("Ended; nothing is left.", err=True)


@main.command(short_help="Print shell lines that point programs at it.")
@_directory
def env(directory: Path | None) -> None:
    """Print the shell lines that point foobar-instance at a running emulator."""
    try:
        environment = read_environment(directory or default_directory())
    except EmulatorError as error:
        _fail(error)
    click.echo(environment.as_shell(), nl=False)


def _greeting(emulator: Emulator, directory: Path | None) -> str:
    environment, instance = emulator.environment, emulator.instance
    option = f" --directory {shlex.quote(str(directory))}" if directory else ""
    return f"""\
Up, in {emulator.directory}

  enclave            {environment["FOOBAR_ENCLAVE"]}
  its PCR0           {emulator.enclave.measurements.pcr0.hex()}
  KMS                {environment["AWS_ENDPOINT_URL_KMS"]}
  instance metadata  {environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]}
  account, role      {instance.account_id}, {instance.role}

In another terminal:

  eval "$({shlex.quote(sys.executable)} -m emulator env{option})"
  foobar-instance create-key
  foobar-instance encrypt --plaintext "attack at dawn" | foobar-instance decrypt --ciphertext -

Ctrl-C ends it.
"""


def _fail(error: EmulatorError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m emulator")
