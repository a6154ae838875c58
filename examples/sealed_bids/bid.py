"""A bidder's side of the auction: makes a key, and signs a bid."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from examples.sealed_bids.computation import MAX_AMOUNT, Bid, Round
from foobar_shared.encoding import from_base64, to_base64
from foobar_shared.errors import MessageError

_AMOUNT: Final = re.compile(r"[0-9]{1,15}")
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


def sign(key: Ed25519PrivateKey, round_: Round, amount: int) -> Bid:
    """Return the bid of `amount` in `round_` by the holder of `key`."""
    bidder = key.public_key().public_bytes_raw()
    return Bid(round_, bidder, amount, key.sign(Bid.to_sign(round_, bidder, amount)))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Take part in a sealed-bid auction."""


@main.command("new-key")
@click.option("--key", "path", type=_FILE, required=True, help="Where to write the private key.")
def new_key(path: Path) -> None:
    """Make a bidder's key, and print the public key: a line of the roster."""
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    click.echo(to_base64(key.public_key().public_bytes_raw()))


@main.command("sign")
@click.option("--key", "path", type=_FILE, required=True, help="The private key.")
@click.option("--round", "round_id", required=True, help="The round's id.")
@click.option("--roster", type=_FILE, required=True, help="The bidders' public keys, one a line.")
@click.option(
    "--amount", default="-", show_default=True, metavar="N|-", help="The bid; - reads stdin."
)
def sign_bid(path: Path, round_id: str, roster: Path, amount: str) -> None:
    """Print the plaintext to encrypt: a signed bid.

    An amount on the command line shows in the list of processes: give it through standard input.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
        keys = roster.read_text("ascii").split()
        round_ = Round(round_id, tuple(from_base64(text) for text in keys))
    except MessageError as error:
        raise click.ClickException(f"round or roster: {error}") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise click.ClickException("the key is not a PEM file, or the roster is no text") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise click.ClickException(f"{path}: not an Ed25519 key; new-key makes one")
    if key.public_key().public_bytes_raw() not in round_.roster:
        raise click.ClickException(f"{roster} does not have the public key of {path}")
    text = sys.stdin.buffer.readline(64).decode("ascii", "replace") if amount == "-" else amount
    if not _AMOUNT.fullmatch(text.strip()):
        raise click.ClickException(f"the amount is not a whole number from 0 to {MAX_AMOUNT}")
    click.echo(sign(key, round_, int(text)).encode())


if __name__ == "__main__":
    main(prog_name="python -m examples.sealed_bids.bid")
