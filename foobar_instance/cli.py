"""`foobar-instance`: the program. Finds the command, and turns errors into a line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Final, cast

import click
from click.exceptions import NoArgsIsHelpError

from foobar_instance.options import verbosity_options
from foobar_shared import VERSION

PROGRAM: Final = "foobar-instance"
SUMMARIES: Final = {
    "create-key": "Have the enclave create a KMS key that only its image can use.",
    "encrypt": "Encrypt to the attested key, on any machine, with no network.",
    "decrypt": "Have the enclave decrypt a message and count its letters 'a'.",
    "verify": "Verify a result that somebody else obtained, without AWS.",
    "describe": "Show any Nitro Enclave's attestation document.",
    "measure": "Compute the PCRs of an enclave image file, without nitro-cli.",
}
"""What --help says of each command, in the order of use."""

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_MAX_WIDTH: Final = 100
_NO_TERMINAL: Final = 80
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": _MAX_WIDTH}


class _Commands(Mapping[str, click.Command]):
    """All commands by name; their module is loaded for the first, and not for --help."""

    def __getitem__(self, name: str) -> click.Command:
        from foobar_instance import commands

        return commands.ALL[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class _Group(click.Group):
    """A group that knows what its commands do without having loaded them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of use."""
        return list(SUMMARIES)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """The list in --help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(
    cls=_Group,
    # Mutable for add_command alone, which is never called.
    commands=cast("MutableMapping[str, click.Command]", _Commands()),
    context_settings=_CONTEXT,
    epilog="Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 not verified.",
)
@click.version_option(VERSION, prog_name=PROGRAM)
@verbosity_options
def cli(**_: bool) -> None:
    """Talk to the foobar enclave, and verify everything it says.

    The parent instance relays but is not trusted: every answer of the enclave is an attestation
    that is verified up to the AWS Nitro root and against the PCR0 that you pin.

    \b
    On the parent instance, beside foobar-enclave.measurements.json:
      sudo foobar-instance create-key
      foobar-instance encrypt --plaintext - < message > ciphertext
      foobar-instance decrypt --ciphertext - < ciphertext
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    _empty_streams()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Every error is one line on standard error."""
    try:
        code = cli.main(
            args=list(arguments),
            prog_name=PROGRAM,
            standalone_mode=False,
            terminal_width=_help_width(),
        )
    except NoArgsIsHelpError as error:
        _say(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        return _fail(f"{error.format_message()} (see {_help_of(error)})", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a traceback is no message
        return _fail(*_reported(error))
    # click returns the code of an Exit, and None where a command has just ended.
    return code if isinstance(code, int) else 0


def _help_width() -> int:
    """The width that click would choose, without `shutil` and the compressors that it loads."""
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        columns = 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(
                sys.__stdout__.fileno() if sys.__stdout__ else -1
            ).columns
        except (OSError, ValueError):  # no terminal
            columns = 0
    return max(min(columns or _NO_TERMINAL, _MAX_WIDTH) - 2, 50)


def _reported(error: Exception) -> tuple[str, int]:
    from foobar_instance.errors import InstanceError
    from foobar_shared.errors import SharedError

    if isinstance(error, InstanceError):
        return str(error), error.exit_code
    if isinstance(error, SharedError):
        return str(error), 1
    if (
        isinstance(error, OSError) and error.strerror
    ):  # of click's own output: --help on a full disk
        return f"cannot go on: {error.strerror}", 1
    import logging
    import traceback

    # Where it happened, without the exception's text: that may quote what it failed on.
    where = "".join(traceback.format_tb(error.__traceback__))
    logging.getLogger(__name__).debug("%s at\n%s", type(error).__name__, where)
    return f"unexpected {type(error).__name__}: please report it (-v shows where)", 1


def _fail(text: str, exit_code: int) -> int:
    from foobar_instance.text import visible

    _say(f"error: {visible(text)}")
    return exit_code


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has gone: the exit code still tells
        click.echo(text, err=True)


def _empty_streams() -> None:
    """What a broken stream still holds would make Python exit with 120, whatever the code is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # the shell's >&-
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _help_of(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else PROGRAM} --help"
