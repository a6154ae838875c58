"""The command line: commands and options, results to standard output, errors as one line."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.exceptions import NoArgsIsHelpError

from foobar_instance import workers
from foobar_instance.errors import FileError, InstanceError, NotVerifiedError, UsageError
from foobar_instance.files import (
    MAX_DOCUMENT,
    check_writable,
    read_file,
    read_stdin,
    stdin_lines,
    write_file,
    write_stdout,
)
from foobar_instance.terminal import Progress, log_to_stderr, visible
from foobar_shared import VERSION
from foobar_shared.computation import SUMMARY
from foobar_shared.errors import AddressError, SharedError

# What loads boto3 or cryptography is imported in the command that needs it.
if TYPE_CHECKING:
    from foobar_instance.attestation import Partition
    from foobar_instance.proof import AnyMessage
    from foobar_instance.trust import Trust
    from foobar_shared.addresses import Address

PROGRAM: Final = "foobar-instance"

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_CONTEXT: Final = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return an option that can also come from the environment, as `FOOBAR_` and its name."""
    long_name = next(name for name in names if name.startswith("--"))
    variable = f"FOOBAR_{long_name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, envvar=variable, show_envvar=True, **settings)


path_option = functools.partial(option, type=click.Path(path_type=Path))

attestation_names: Final = ("--attestation-path", "--attestationPath", "attestation_path")
attestation_option = path_option(
    *attestation_names,
    default="attestation.out",
    help="The key's attestation document.",
)
enclave_option = option(
    "--enclave",
    "enclaves",
    default=["vsock:16:1000"],
    metavar="ADDRESS",
    multiple=True,
    help="Where the enclave listens: vsock:CID:PORT or unix:PATH. decrypt takes several of one "
    "image, create-key the first.",
)
root_option = path_option(
    "--root-path",
    "--rootPath",
    "root_path",
    help="Root certificate (PEM) to trust instead of AWS's packaged one.",
)
partition_option = option(
    "--partition",
    type=click.Choice(["aws", "aws-us-gov"]),
    default="aws",
    help="Which of the packaged AWS roots to trust.",
)
lines_option = option(
    "--lines", is_flag=True, help="Take each line of standard input as a message."
)
ciphertext_option = click.option(
    "--ciphertext", required=True, metavar="TEXT|-", help="The message; - reads stdin."
)
json_option = option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return several options as one decorator; --help shows them in this order."""
    return lambda function: functools.reduce(lambda f, add: add(f), reversed(decorators), function)


def trust_options(*, default_file: bool) -> Callable[[F], F]:
    """Return the options that say what a command trusts."""
    default = " [default: ./foobar-enclave.measurements.json, if there]" if default_file else ""
    return options(
        root_option,
        partition_option,
        path_option(
            "--measurements",
            help=f"Expected PCRs: the JSON that nitro-cli build-enclave prints.{default}",
        ),
        option("--pcr0", metavar="HEX", help="Expected PCR0, 96 hexadecimal digits."),
        option("--pcr", "pcrs", metavar="N=HEX", multiple=True, help="A further expected PCR."),
        click.option("--trust-any-enclave", is_flag=True, help="Compare no measurement (warns)."),
        click.option("--allow-debug", is_flag=True, help="Accept enclaves in debug mode (warns)."),
    )


verbosity_options = options(
    option(
        "-q",
        "--quiet",
        is_flag=True,
        help="Tell nothing but warnings, errors and what pins the enclave.",
    ),
    option("-v", "--verbose", is_flag=True, help="Log what happens in detail."),
)


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of use; click would sort them."""
        return list(self.commands)


@click.group(
    cls=_InOrder,
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


@cli.command("create-key")
@option(
    "--role", default="aws-nitro-enclave-foobar-iam-role", help="Name of the instance's IAM role."
)
@attestation_option
@enclave_option
@option(
    "--proxy-listen",
    default="vsock:3:1001",
    metavar="ADDRESS",
    help="Where the relay to KMS listens. Ports below 1024 need root.",
)
@trust_options(default_file=True)
@verbosity_options
def create_key_command(
    role: str, attestation_path: Path, enclaves: tuple[str, ...], proxy_listen: str, **common: Any
) -> None:
    """Have the enclave create a KMS key that only its image can use.

    Saves the key's attestation, once it is verified, where encrypt and decrypt look for it. Run
    it on the parent instance, as root: the relay's vsock port is below 1024.

    \b
      sudo foobar-instance create-key
      sudo foobar-instance create-key --pcr0 HEX --attestation-path key.out
    """
    from foobar_instance.create_key import Places, create_key

    progress = _progress(common)
    trust = _trust(common, progress)
    places = Places(
        enclave=_address("--enclave", enclaves[0]),
        relay=_address("--proxy-listen", proxy_listen),
        attestation=attestation_path,
    )
    create_key(role, places, trust, progress, now=_now)


@cli.command("encrypt")
@attestation_option
@trust_options(default_file=True)
@verbosity_options
@click.option(
    "--plaintext", required=True, metavar="TEXT|-", help="What to encrypt; - reads stdin."
)
@lines_option
@option(
    "--format",
    "message_format",
    type=click.Choice(["1", "2"]),
    default="2",
    help="Format of the message; 1 is the original service's.",
)
def encrypt_command(
    attestation_path: Path, plaintext: str, message_format: str, *, lines: bool, **common: Any
) -> None:
    """Encrypt to the attested key, on any machine, with no network.

    Verifies the key's attestation first, and prints the ciphertext message. TEXT shows in the list
    of processes: give a secret through standard input, where bytes of any content do.

    \b
      foobar-instance encrypt --plaintext "attack at dawn"
      foobar-instance encrypt --plaintext - < message
      foobar-instance encrypt --lines --plaintext - < messages > ciphertexts
    """
    from foobar_instance.encrypt import MAX_PLAINTEXT, sealer

    trust = _trust(common, _progress(common))
    limit = MAX_PLAINTEXT[int(message_format)]
    if lines:
        _require_stdin("--plaintext", plaintext)
        seal = sealer(_key_document(attestation_path), trust, int(message_format))
        for number, line in enumerate(stdin_lines(limit=limit), 1):
            _check_length(line, limit, f"the plaintext in line {number}")
            write_stdout(seal(line))
        return
    data = read_stdin("the plaintext", limit=limit) if plaintext == "-" else os.fsencode(plaintext)
    _check_length(data, limit, "the plaintext")
    write_stdout(sealer(_key_document(attestation_path), trust, int(message_format))(data))


@cli.command(
    "decrypt",
    help=f"""Have the enclave decrypt messages and {SUMMARY}.

    Prints the result once it is verified that the enclave has computed it for this very message.
    With --lines, prints a result for each line of standard input, in the same order. With
    --together, prints one result over all of them.

    \b
      foobar-instance decrypt --ciphertext - < ciphertext
      foobar-instance decrypt --lines --ciphertext - < ciphertexts
      foobar-instance encrypt --plaintext - < message |
        foobar-instance decrypt --ciphertext -
    """,
)
@attestation_option
@enclave_option
@trust_options(default_file=True)
@verbosity_options
@ciphertext_option
@lines_option
@option("--together", is_flag=True, help="Print one result over all lines (implies --lines).")
@option(
    "--jobs", type=click.IntRange(1, 64), default=8, help="How many messages are asked at a time."
)
@path_option("--proof", help="Write a proof of the one result here, for verify.")
@json_option
def decrypt_command(
    attestation_path: Path,
    enclaves: tuple[str, ...],
    ciphertext: str,
    proof: Path | None,
    jobs: int,
    *,
    lines: bool,
    together: bool,
    as_json: bool,
    **common: Any,
) -> None:
    """Read the options of `decrypt`, and print what the enclave has computed."""
    from foobar_instance.decrypt import Decryptor
    from foobar_instance.enclaves import Enclaves
    from foobar_instance.kms_client import KmsService
    from foobar_instance.lines import decrypt_lines, read_all
    from foobar_instance.proof import as_json_text

    many = lines or together
    if many:
        _require_stdin("--ciphertext", ciphertext)
    if lines and not together and proof is not None:
        raise UsageError("--proof is for one result: add --together, or leave out --lines")
    progress = _progress(common)
    trust = _trust(common, progress)
    messages = () if lines and not together else read_all() if together else (_message(ciphertext),)
    document = _key_document(attestation_path)
    if proof is not None:
        check_writable(proof)
    asked = Enclaves([_address("--enclave", enclave) for enclave in enclaves], progress)
    with contextlib.closing(asked):
        decryptor = Decryptor(
            document,
            asked,
            trust,
            Progress(quiet=True) if many else progress,
            key_path=attestation_path,
            now=_now,
            kms=lambda region: KmsService(region, connections=jobs),
        )
        if lines and not together:
            decryptor.check_enclaves()
            decrypt_lines(decryptor.decrypt, trust, progress, jobs=jobs, as_json=as_json)
            return
        verified = (
            decryptor.together(messages, jobs=jobs) if together else decryptor.decrypt(messages[0])
        )
    if proof is not None:
        write_file(proof, verified.proof.encode())
        progress.step(f"proof saved in {proof}")
    write_stdout(as_json_text(verified, trust) if as_json else str(verified.result))


@cli.command("check")
@attestation_option
@enclave_option
@trust_options(default_file=True)
@verbosity_options
def check_command(attestation_path: Path, enclaves: Sequence[str], **common: Any) -> None:
    """Check that decrypt would work now, without a message.

    Asks each enclave who it is, and KMS whether it would let it use the key (a dry run). Prints a
    line for each check, ok or failed. The exit code is 0 if all is well, else that of the first
    failure.

    \b
      foobar-instance check
    """
    from foobar_instance.check import check

    trust = _trust(common, _progress(common))
    document = _key_document(attestation_path)
    addresses = [_address("--enclave", address) for address in enclaves]
    exit_code = 0
    for finding in check(document, addresses, trust, now=_now):
        write_stdout(str(finding))
        exit_code = exit_code or finding.exit_code
    raise click.exceptions.Exit(exit_code)


@cli.command("verify")
@path_option("--proof", required=True, help="The proof that decrypt --proof has written.")
@ciphertext_option
@lines_option
@path_option(
    *attestation_names,
    help="The key's attestation that you know: the proof must hold the very same.",
)
@trust_options(default_file=False)
@verbosity_options
@json_option
def verify_command(
    proof: Path,
    ciphertext: str,
    attestation_path: Path | None,
    *,
    lines: bool,
    as_json: bool,
    **common: Any,
) -> None:
    """Verify a result that somebody else obtained, without AWS.

    Works offline, on any machine. Needs the proof, the ciphertext message that it is for (or with
    --lines, the messages), and the PCR0 of the enclave that you trust. docs/proof.md says what a
    proof proves, and what it does not.

    \b
      foobar-instance verify --proof result.json --pcr0 HEX --ciphertext - < ciphertext
    """
    from foobar_instance.lines import read_all
    from foobar_instance.proof import MAX_PROOF, as_json_text, as_text, parse_proof, verify_proof

    if lines:
        _require_stdin("--ciphertext", ciphertext)
    trust = _trust(common, _progress(common), default_file=False)
    messages = read_all() if lines else (_message(ciphertext),)
    parsed = parse_proof(read_file(proof, limit=MAX_PROOF))
    if attestation_path and parsed.key != read_file(attestation_path, limit=MAX_DOCUMENT):
        raise NotVerifiedError(
            f"the proof is for another key than the one that {attestation_path} attests"
        )
    result = verify_proof(parsed, messages, trust)
    write_stdout(as_json_text(result, trust) if as_json else as_text(result, trust))


@cli.command("describe")
@click.argument("path", type=click.Path(allow_dash=True, path_type=Path))
@root_option
@partition_option
@verbosity_options
@json_option
def describe_command(
    path: Path, root_path: Path | None, partition: Partition, as_json: bool, **common: Any
) -> None:
    """Show any Nitro Enclave's attestation document.

    PATH is a file, or - for standard input: raw, base64, hexadecimal, a data: URI, or JSON with one
    of them or with a list of integers. The document is judged
    under the root at its own signed time, with no enclave pinned: the exit code is 0 if it
    verifies, 3 if not.
    """
    from foobar_instance import describe
    from foobar_instance.trust import load_root

    progress = _progress(common)
    limit = describe.MAX_INPUT
    what = "the document"
    data = read_stdin(what, limit=limit) if str(path) == "-" else read_file(path, limit=limit)
    root = load_root(root_path, partition, progress)
    name = str(root_path) if root_path else f"AWS's root for the partition {partition}"
    description = describe.describe(describe.decode_input(data), root, name, now=_now())
    write_stdout(describe.as_json(description) if as_json else describe.as_text(description))
    if description.error:
        raise click.exceptions.Exit(NotVerifiedError.exit_code)


@cli.command("measure")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--allow-unknown-flags",
    is_flag=True,
    help="Measure an image with header flags that may change PCR0 (warns).",
)
@verbosity_options
def measure_command(image: Path, allow_unknown_flags: bool, **common: Any) -> None:
    """Compute the PCRs of an enclave image file, without nitro-cli.

    Prints the JSON that nitro-cli build-enclave prints, for --measurements. The signature of a
    signed image is checked; PCR8 is that of its certificate.

    \b
      foobar-instance measure IMAGE.eif > foobar-enclave.measurements.json
    """
    from foobar_instance.eif import measure_image

    measured = measure_image(image, allow_unknown_flags=allow_unknown_flags)
    measured.tell(_progress(common), _now())
    write_stdout(measured.as_nitro_cli_json())


def _progress(common: dict[str, Any]) -> Progress:
    """Set up logging, and return where to tell; -q and -v also count before the command."""
    group = click.get_current_context().find_root().params
    quiet, verbose = (common.pop(name) or group[name] for name in ("quiet", "verbose"))
    log_to_stderr(verbose=verbose)
    return Progress(quiet=quiet)


def _trust(common: dict[str, Any], progress: Progress, *, default_file: bool = True) -> Trust:
    from foobar_instance.trust import DEFAULT_MEASUREMENTS, TrustOptions, make_trust

    source = click.get_current_context().get_parameter_source
    given = TrustOptions(
        **common,
        from_environment=frozenset(
            name for name in common if source(name) is ParameterSource.ENVIRONMENT
        ),
        default_file=DEFAULT_MEASUREMENTS if default_file else None,
    )
    return make_trust(given, progress)


def _address(name: str, text: str) -> Address:
    from foobar_shared.addresses import parse_address

    try:
        return parse_address(text)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def _key_document(path: Path) -> bytes:
    try:
        return read_file(path, limit=MAX_DOCUMENT)
    except FileError as error:
        raise FileError(
            f"{error}; create-key saves a key's attestation, --attestation-path says where it is"
        ) from error


def _message(ciphertext: str) -> AnyMessage:
    """Return the message in the option, or on standard input."""
    from foobar_instance.lines import MAX_TEXT, parse

    return parse(
        read_stdin("the ciphertext", limit=MAX_TEXT)
        if ciphertext == "-"
        else os.fsencode(ciphertext)
    )


def _require_stdin(name: str, value: str) -> None:
    if value != "-":
        raise UsageError(f"several messages come from standard input: give {name} -")


def _check_length(plaintext: bytes, limit: int, what: str) -> None:
    if len(plaintext) > limit:
        raise UsageError(f"{what} is longer than {limit} bytes: split it")


def _now() -> datetime:
    return datetime.now(UTC)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    _flush()
    if workers.any_left():
        os._exit(code)  # Python's own end would wait for a lock that a reading thread holds
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Every error is one line on standard error."""
    try:
        code = cli.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except NoArgsIsHelpError as error:
        _say(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        text = f"{error.format_message()} (see {_help_command(error, arguments)})"
        return _fail(text, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED)
    except (InstanceError, SharedError) as error:
        return _fail(str(error), error.exit_code if isinstance(error, InstanceError) else 1)
    except SystemExit as end:  # click's way out where the reader of standard output has gone
        code = end.code
    except Exception as error:  # noqa: BLE001 - a user gets one line, never a traceback
        return _fail(_unexpected(error), 1)
    # click returns the code of an Exit, and None where a command has just ended.
    return code if isinstance(code, int) else 0


def _help_command(error: click.UsageError, arguments: Sequence[str]) -> str:
    if error.ctx:
        return f"{error.ctx.command_path} --help"
    # Errors of click's parser, such as a missing value, do not say which command they are of.
    command = next((name for name in arguments if name in cli.commands), None)
    return " ".join([PROGRAM, *([command] if command else []), "--help"])


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # click's own output: --help on a full disk
        name = f"{error.filename}: " if error.filename else ""
        return f"cannot go on: {name}{error.strerror}"
    # Only where it happened: the error's text may quote what the code failed on.
    where = "".join(traceback.format_tb(error.__traceback__))
    logging.getLogger(__name__).debug("%s at\n%s", type(error).__name__, where)
    return f"unexpected {type(error).__name__}: please report it (-v shows where)"


def _fail(text: str, exit_code: int) -> int:
    _say(f"error: {visible(text)}")
    return exit_code


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has gone: the exit code still tells
        click.echo(text, err=True)


def _flush() -> None:
    """Flush the streams now: where Python fails to at exit, its exit code would be 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # the shell's >&-
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
