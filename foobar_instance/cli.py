"""`foobar-instance`: the command line. Parses options, prints results, turns errors into a line."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource
from click.exceptions import NoArgsIsHelpError

from foobar_instance.options import (
    attestation_option,
    enclave_option,
    option,
    partition_option,
    path_option,
    trust_options,
    verbosity_options,
)

if TYPE_CHECKING:
    from foobar_instance.attestation import Partition
    from foobar_instance.progress import Progress
    from foobar_instance.result import Result
    from foobar_instance.trust import Trust
    from foobar_shared.addresses import Address
    from foobar_shared.envelope import Message

PROGRAM: Final = "foobar-instance"
DISTRIBUTION: Final = "aws-nitro-enclave-foobar-service"
MAX_DOCUMENT: Final = 64 * 1024
DEFAULT_ROLE: Final = "aws-nitro-enclave-foobar-iam-role"

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    context_settings=_CONTEXT,
    epilog="Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 not verified.",
)
@click.version_option(package_name=DISTRIBUTION, prog_name=PROGRAM)
def cli() -> None:
    """Talk to the foobar enclave, and verify everything it says.

    The parent instance relays but is not trusted: every answer of the enclave is an attestation
    that is verified up to the AWS Nitro root and against the PCR0 that you pin.
    """


@cli.command("create-key")
@option("--role", default=DEFAULT_ROLE, show_default=True, help="Name of the instance's IAM role.")
@attestation_option
@enclave_option
@option(
    "--proxy-listen",
    default="vsock:3:1001",
    show_default=True,
    metavar="ADDRESS",
    help="Where the relay to KMS listens. Ports below 1024 need root.",
)
@trust_options
@verbosity_options
def create_key_command(
    role: str, attestation_path: Path, enclave: str, proxy_listen: str, **common: Any
) -> None:
    """Have the enclave create a KMS key that only its own image can use.

    Run it on the parent instance, as root: sudo foobar-instance create-key
    """
    from foobar_instance.create_key import Places, create_key

    progress, trust = _set_up(common)
    places = Places(
        enclave=_address("--enclave", enclave),
        relay=_address("--proxy-listen", proxy_listen),
        attestation=attestation_path,
    )
    create_key(role, places, trust, progress, now=_now)


@cli.command("encrypt")
@attestation_option
@trust_options
@verbosity_options
@click.option(
    "--plaintext", required=True, metavar="TEXT|-", help="What to encrypt; - reads stdin."
)
def encrypt_command(attestation_path: Path, plaintext: str, **common: Any) -> None:
    """Encrypt to the attested key, on any machine, with no network.

    Prints the ciphertext message. Bytes of any content come through standard input:

        foobar-instance encrypt --plaintext - < message
    """
    from foobar_instance.encrypt import encrypt
    from foobar_instance.errors import UsageError
    from foobar_instance.files import read_file, read_stdin, write_stdout
    from foobar_shared.envelope import MAX_PLAINTEXT

    _, trust = _set_up(common)
    data = read_stdin(limit=MAX_PLAINTEXT) if plaintext == "-" else os.fsencode(plaintext)
    if len(data) > MAX_PLAINTEXT:
        raise UsageError(f"the plaintext is longer than {MAX_PLAINTEXT} bytes: split it")
    document = read_file(attestation_path, limit=MAX_DOCUMENT)
    write_stdout(encrypt(data, document, trust))


@cli.command("decrypt")
@attestation_option
@enclave_option
@trust_options
@verbosity_options
@click.option("--ciphertext", required=True, metavar="TEXT|-", help="The message; - reads stdin.")
@path_option("--proof", help="Write a proof of the result here, for verify.")
@option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def decrypt_command(
    attestation_path: Path,
    enclave: str,
    ciphertext: str,
    proof: Path | None,
    as_json: bool,
    **common: Any,
) -> None:
    """Have the enclave decrypt a message and count its letters 'a'.

    foobar-instance encrypt --plaintext - < message | foobar-instance decrypt --ciphertext -
    """
    from foobar_instance.decrypt import decrypt
    from foobar_instance.files import read_file, write_file, write_stdout
    from foobar_instance.proof import proof_of

    progress, trust = _set_up(common)
    message = _message(ciphertext)
    document = read_file(attestation_path, limit=MAX_DOCUMENT)
    address = _address("--enclave", enclave)
    result = decrypt(message, document, address, trust, progress, now=_now)
    if proof is not None:
        write_file(proof, proof_of(result).encode())
        progress.step(f"proof saved in {proof}")
    write_stdout(_result_json(result) if as_json else f"Count 'a': {result.count}")


@cli.command("verify")
@path_option("--proof", required=True, help="The proof that decrypt --proof has written.")
@click.option("--ciphertext", required=True, metavar="TEXT|-", help="The message; - reads stdin.")
@path_option(
    "--attestation-path",
    "--attestationPath",
    "attestation_path",
    help="The key's attestation that you know: the proof must hold the very same.",
)
@trust_options
@verbosity_options
@option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify_command(
    proof: Path, ciphertext: str, attestation_path: Path | None, as_json: bool, **common: Any
) -> None:
    """Verify a result that somebody else obtained: offline, on any machine, without AWS.

    Needs the proof, the ciphertext message that it is for, and the PCR0 of the enclave that you
    trust. docs/proof.md says what a proof proves, and what it does not.
    """
    from foobar_instance.errors import NotVerifiedError
    from foobar_instance.files import read_file, write_stdout
    from foobar_instance.proof import MAX_PROOF, parse_proof, verify_proof

    _, trust = _set_up(common)
    message = _message(ciphertext)
    parsed = parse_proof(read_file(proof, limit=MAX_PROOF))
    if attestation_path is not None:
        known = read_file(attestation_path, limit=MAX_DOCUMENT)
        if parsed.key != known:
            raise NotVerifiedError(
                f"the proof is for another key than the one that {attestation_path} attests"
            )
    result = verify_proof(parsed, message, trust)
    write_stdout(_result_json(result) if as_json else _result_text(result))


@cli.command("describe")
@click.argument("path", type=click.Path(path_type=Path, allow_dash=True))
@path_option(
    "--root-path",
    "--rootPath",
    "root_path",
    help="Root certificate (PEM) to verify under instead of AWS's packaged one.",
)
@partition_option
@option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def describe_command(
    path: Path, root_path: Path | None, partition: Partition, as_json: bool
) -> None:
    """Show any Nitro Enclave's attestation document: raw, base64 or hexadecimal.

    PATH is a file, or - for standard input. The document is judged under the root at its own
    signed time, with no enclave pinned: the exit code is 0 if it verifies, 3 if not.
    """
    from foobar_instance import describe
    from foobar_instance.errors import NotVerifiedError
    from foobar_instance.files import read_file, read_stdin, write_stdout
    from foobar_instance.pinning import load_root
    from foobar_instance.progress import choose_progress

    limit = describe.MAX_INPUT
    data = read_stdin(limit=limit) if str(path) == "-" else read_file(path, limit=limit)
    root = load_root(root_path, partition, choose_progress(quiet=False))
    name = str(root_path) if root_path else f"AWS's root for the partition {partition}"
    description = describe.describe(describe.decode_input(data), root, name, now=_now())
    write_stdout(describe.as_json(description) if as_json else describe.as_text(description))
    if not description.verdict.verified:
        raise click.exceptions.Exit(NotVerifiedError.exit_code)


@cli.command("measure")
@click.argument("image", type=click.Path(path_type=Path))
def measure_command(image: Path) -> None:
    """Compute the PCRs of an enclave image file (EIF), without nitro-cli.

    Prints the JSON that nitro-cli build-enclave prints, for --measurements:

        foobar-instance measure IMAGE.eif > foobar-enclave.measurements.json
    """
    from foobar_instance.eif import measure_image
    from foobar_instance.files import write_stdout

    write_stdout(measure_image(image).as_nitro_cli_json())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Every error is one line on standard error."""
    try:
        code = cli.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        return _fail(f"{error.format_message()} (see {_help_of(error)})", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a traceback is no message
        return _fail(*_reported(error))
    # click returns the code of an Exit, and None where a command has just ended.
    return code if isinstance(code, int) else 0


def _reported(error: Exception) -> tuple[str, int]:
    from foobar_instance.errors import InstanceError
    from foobar_shared.errors import EnvelopeError, SharedError

    if isinstance(error, InstanceError):
        return str(error), error.exit_code
    if isinstance(error, EnvelopeError):
        return str(error), 2
    if isinstance(error, SharedError):
        return str(error), 1
    # Where it happened, without the exception's text: that may quote what it failed on.
    where = "".join(traceback.format_tb(error.__traceback__))
    logging.getLogger(__name__).debug("%s at\n%s", type(error).__name__, where)
    return f"unexpected {type(error).__name__}: please report it (-v shows where)", 1


def _fail(text: str, exit_code: int) -> int:
    click.echo(f"error: {text}", err=True)
    return exit_code


def _help_of(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else PROGRAM} --help"


def _set_up(common: dict[str, Any]) -> tuple[Progress, Trust]:
    """Logging and progress, and what to trust, from the options that every command has."""
    from foobar_instance.pinning import TrustOptions, make_trust
    from foobar_instance.progress import choose_progress

    _log_to_stderr(verbose=common.pop("verbose"))
    progress = choose_progress(quiet=common.pop("quiet"))
    if common["trust_any_enclave"]:
        _ignore_environment_measurements(common)
    return progress, make_trust(TrustOptions(**common), progress)


def _ignore_environment_measurements(common: dict[str, Any]) -> None:
    """An explicit --trust-any-enclave outweighs what the environment pins, and warns by itself."""
    context = click.get_current_context()
    nothing = {"measurements": None, "pcr0": None, "pcrs": ()}
    common.update(
        (name, value)
        for name, value in nothing.items()
        if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT
    )


def _log_to_stderr(*, verbose: bool) -> None:
    """Debug logs of this project alone: the AWS SDK's would show requests with credentials."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("foobar_instance", "proxy"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR)


def _address(name: str, text: str) -> Address:
    from foobar_shared.addresses import parse_address
    from foobar_shared.errors import AddressError

    try:
        return parse_address(text)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def _message(ciphertext: str) -> Message:
    """The ciphertext message of the option, or of standard input."""
    from foobar_instance.errors import NotVerifiedError
    from foobar_instance.files import read_stdin
    from foobar_shared.envelope import MAX_MESSAGE, parse_message
    from foobar_shared.errors import EnvelopeError

    text = ciphertext
    if ciphertext == "-":
        text = read_stdin(limit=MAX_MESSAGE + 2).decode("ascii", errors="replace")
    try:
        return parse_message(text.strip())
    except EnvelopeError as error:
        raise NotVerifiedError(f"{error}; give what `encrypt` printed") from error


def _result_json(result: Result) -> str:
    attestation = result.attestation
    return json.dumps(
        {
            "count": result.count,
            "keyArn": result.key.key_arn,
            "pcr0": attestation.pcrs[0].hex(),
            "moduleId": attestation.module_id,
            "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
            "requestSha256": hashlib.sha256(result.request_line).hexdigest(),
        },
        indent=2,
    )


def _result_text(result: Result) -> str:
    attestation = result.attestation
    return "\n".join(
        (
            f"Count 'a': {result.count}",
            f"computed:  {attestation.timestamp:%Y-%m-%d %H:%M:%S} UTC",
            f"by PCR0:   {attestation.pcrs[0].hex()}",
            f"key:       {result.key.key_arn}",
        )
    )


def _now() -> datetime:
    return datetime.now(UTC)
