"""The bidder's program: what it writes, prints and refuses."""

import base64
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from examples.sealed_bids.bid import main
from examples.sealed_bids.computation import compute


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    """A roster of two, whose keys are in `0.pem` and `1.pem` beside it."""
    lines = [run("new-key", "--key", tmp_path / f"{number}.pem").stdout for number in range(2)]
    path = tmp_path / "roster"
    path.write_text("".join(lines))
    return path


def sign(roster: Path, key: str, *amount: str, stdin: str = "", round_id: str = "7") -> Result:
    fixed = ("sign", "--key", roster.parent / key, "--round", round_id, "--roster", roster)
    return run(*fixed, *amount, stdin=stdin)


def test_a_whole_round(roster: Path) -> None:
    first = sign(roster, "0.pem", stdin="41\n")
    second = sign(roster, "1.pem", "--amount", "42")
    result = compute([first.stdout_bytes, second.stdout_bytes])
    assert result.winner == base64.b64decode(roster.read_text().split()[1])
    assert result.price == 41


def test_a_private_key_is_its_owner_s_and_never_written_over(roster: Path) -> None:
    path = roster.parent / "0.pem"
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    refused = run("new-key", "--key", path)
    assert refused.exit_code == 1
    assert "exists" in refused.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("amount", ["-1", "", "1.5", "1e3", "१", "1" * 16, "secret"])
def test_amounts_are_whole_numbers_and_not_repeated(roster: Path, amount: str) -> None:
    for refused in (
        sign(roster, "0.pem", stdin=amount),
        sign(roster, "0.pem", f"--amount={amount}"),
    ):
        assert refused.exit_code == 1
        assert refused.stderr == (
            "Error: the amount is not a whole number from 0 to 999999999999999\n"
        )
        assert not refused.stdout


def test_what_is_wrong_is_said(roster: Path) -> None:
    folder = roster.parent
    run("new-key", "--key", folder / "stranger.pem")
    key = generate_private_key(SECP256R1())
    (folder / "ec.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for name, reason in {
        "stranger.pem": "does not have the public key",
        "ec.pem": "not an Ed25519 key",
        "missing.pem": "No such file",
        "roster": "not a PEM file",
    }.items():
        refused = sign(roster, name, "--amount", "1")
        assert refused.exit_code == 1, name
        assert reason in refused.stderr, name
    assert "round's id" in sign(roster, "0.pem", "--amount", "1", round_id="a b").stderr
    roster.write_text(roster.read_text().splitlines()[0] * 2)
    assert "round or roster" in sign(roster, "0.pem", "--amount", "1").stderr
