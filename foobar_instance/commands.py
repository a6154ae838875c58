"""The commands of `foobar-instance`: from options to a job, from its result to standard output."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from foobar_instance.options import (
    PathType,
    attestation_option,
    enclave_option,
    option,
    partition_option,
    path_option,
    trust_options,
    verbosity_options,
)

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from foobar_instance.attestation import Partition
    from foobar_instance.progress import Progress
    from foobar_instance.trust import Trust
    from foobar_shared.addresses import Address
    from foobar_shared.envelope import Message

MAX_DOCUMENT: Final = 64 * 1024
DEFAULT_ROLE: Final = "aws-nitro-enclave-foobar-iam-role"


@click.command("create-key")
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
    """Have the enclave create a KMS key that only its image can use.

    Saves the key's attestation, once it is verified, where encrypt and decrypt look for it. Run
    it on the parent instance, as root: the relay's vsock port is below 1024.

    \b
      sudo foobar-instance create-key
      sudo foobar-instance create-key --pcr0 HEX --attestation-path key.out
    """
    from foobar_instance.create_key import Places, create_key

    progress, trust = _set_up(common)
    places = Places(
        enclave=_address("--enclave", enclave),
        relay=_address("--proxy-listen", proxy_listen),
        attestation=attestation_path,
    )
    create_key(role, places, trust, progress, now=_now)


@click.command("encrypt")
@attestation_option
@trust_options
@verbosity_options
@click.option(
    "--plaintext", required=True, metavar="TEXT|-", help="What to encrypt; - reads stdin."
)
def encrypt_command(attestation_path: Path, plaintext: str, **common: Any) -> None:
    """Encrypt to the attested key, on any machine, with no network.

    Verifies the key's attestation first, and prints the ciphertext message. TEXT shows in the list
    of processes: give a secret through standard input, where bytes of any content do.

    \b
      foobar-instance encrypt --plaintext "attack at dawn"
      foobar-instance encrypt --plaintext - < message
    """
    from foobar_instance.encrypt import encrypt
    from foobar_instance.errors import UsageError
    from foobar_instance.files import read_stdin, write_stdout
    from foobar_shared.envelope import MAX_PLAINTEXT

    _, trust = _set_up(common)
    data = read_stdin(limit=MAX_PLAINTEXT) if plaintext == "-" else os.fsencode(plaintext)
    if len(data) > MAX_PLAINTEXT:
        raise UsageError(f"the plaintext is longer than {MAX_PLAINTEXT} bytes: split it")
    write_stdout(encrypt(data, _key_document(attestation_path), trust))


@click.command("decrypt")
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

    Prints the count once it is verified that the enclave has computed it for this very message.

    \b
      foobar-instance decrypt --ciphertext - < ciphertext
      foobar-instance encrypt --plaintext - < message |
        foobar-instance decrypt --ciphertext -
    """
    from foobar_instance.decrypt import decrypt
    from foobar_instance.files import check_writable, write_file, write_stdout
    from foobar_instance.proof import proof_of
    from foobar_instance.result import as_json_text, as_line

    progress, trust = _set_up(common)
    message = _message(ciphertext)
    document = _key_document(attestation_path)
    if proof is not None:
        check_writable(proof)
    address = _address("--enclave", enclave)
    result = decrypt(message, document, address, trust, progress, now=_now)
    if proof is not None:
        write_file(proof, proof_of(result).encode())
        progress.step(f"proof saved in {proof}")
    write_stdout(as_json_text(result) if as_json else as_line(result))


@click.command("verify")
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
    """Verify a result that somebody else obtained, without AWS.

    Works offline, on any machine. Needs the proof, the ciphertext message that it is for, and the
    PCR0 of the enclave that you trust. docs/proof.md says what a proof proves, and what it does
    not.

    \b
      foobar-instance verify --proof result.json --pcr0 HEX --ciphertext - < ciphertext
    """
    from foobar_instance.errors import NotVerifiedError
    from foobar_instance.files import read_file, write_stdout
    from foobar_instance.proof import MAX_PROOF, parse_proof, verify_proof
    from foobar_instance.result import as_json_text, as_text

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
    write_stdout(as_json_text(result) if as_json else as_text(result))


@click.command("describe")
@click.argument("path", type=PathType(allow_dash=True))
@path_option(
    "--root-path",
    "--rootPath",
    "root_path",
    help="Root certificate (PEM) to verify under instead of AWS's packaged one.",
)
@partition_option
@verbosity_options
@option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def describe_command(
    path: Path, root_path: Path | None, partition: Partition, as_json: bool, **common: Any
) -> None:
    """Show any Nitro Enclave's attestation document.

    PATH is a file, or - for standard input: raw, base64 or hexadecimal. The document is judged
    under the root at its own signed time, with no enclave pinned: the exit code is 0 if it
    verifies, 3 if not.
    """
    from foobar_instance import describe
    from foobar_instance.errors import NotVerifiedError
    from foobar_instance.files import read_file, read_stdin, write_stdout
    from foobar_instance.pinning import load_root

    progress = _tell(common)
    limit = describe.MAX_INPUT
    data = read_stdin(limit=limit) if str(path) == "-" else read_file(path, limit=limit)
    root = load_root(root_path, partition, progress)
    name = str(root_path) if root_path else f"AWS's root for the partition {partition}"
    description = describe.describe(describe.decode_input(data), root, name, now=_now())
    write_stdout(describe.as_json(description) if as_json else describe.as_text(description))
    if not description.verdict.verified:
        raise click.exceptions.Exit(NotVerifiedError.exit_code)


@click.command("measure")
@click.argument("image", type=PathType())
@verbosity_options
def measure_command(image: Path, **common: Any) -> None:
    """Compute the PCRs of an enclave image file, without nitro-cli.

    Prints the JSON that nitro-cli build-enclave prints, for --measurements.

    \b
      foobar-instance measure IMAGE.eif > foobar-enclave.measurements.json
    """
    from foobar_instance.eif import measure_image
    from foobar_instance.files import write_stdout

    _tell(common)
    write_stdout(measure_image(image).as_nitro_cli_json())


def _set_up(common: dict[str, Any]) -> tuple[Progress, Trust]:
    """Logging and progress, and what to trust, from the options that every command has."""
    from foobar_instance.pinning import TrustOptions, make_trust

    progress = _tell(common)
    if common["trust_any_enclave"]:
        _ignore_environment_measurements(common)
    return progress, make_trust(TrustOptions(**common), progress)


def _tell(common: dict[str, Any]) -> Progress:
    """Logging and progress; -q and -v count before the command's name as after it."""
    from foobar_instance.logs import log_to_stderr
    from foobar_instance.progress import choose_progress

    group = click.get_current_context().find_root().params
    quiet, verbose = (common.pop(name) or group[name] for name in ("quiet", "verbose"))
    log_to_stderr(verbose=verbose)
    return choose_progress(quiet=quiet)


def _ignore_environment_measurements(common: dict[str, Any]) -> None:
    """An explicit --trust-any-enclave outweighs what the environment pins, and warns by itself."""
    context = click.get_current_context()
    nothing = {"measurements": None, "pcr0": None, "pcrs": ()}
    common.update(
        (name, value)
        for name, value in nothing.items()
        if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT
    )


def _address(name: str, text: str) -> Address:
    from foobar_shared.addresses import parse_address
    from foobar_shared.errors import AddressError

    try:
        return parse_address(text)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def _key_document(path: Path) -> bytes:
    from foobar_instance.errors import FileError
    from foobar_instance.files import read_file

    try:
        return read_file(path, limit=MAX_DOCUMENT)
    except FileError as error:
        raise FileError(
            f"{error}; create-key saves a key's attestation, --attestation-path says where it is"
        ) from error


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


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


ALL: Final = {
    command.name: command
    for command in (
        create_key_command,
        encrypt_command,
        decrypt_command,
        verify_command,
        describe_command,
        measure_command,
    )
}
"""Every command, under the name that it is called by."""
