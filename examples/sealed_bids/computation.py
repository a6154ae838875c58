"""What this service computes: who wins a sealed-bid auction, and the second price.

Each message is a bid: a round (its id and its roster of bidders), an amount, and the bidder's
Ed25519 signature over both. The result needs every bidder's bid exactly once, so the parent has
one set of messages that is not refused. No refusal depends on an amount.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from foobar_shared.encoding import Fields, from_base64, parse_json_object, to_base64, to_json
from foobar_shared.errors import ComputationError, MessageError

__all__ = ["NAME", "SUMMARY", "Bid", "ComputationError", "Result", "Round", "compute"]

NAME: Final = "foobar/sealed-bids/1"
SUMMARY: Final = "tell the highest bidder and the second price"

MIN_BIDDERS: Final = 2  # of one bid there is no second price
MAX_BIDDERS: Final = 64  # each bid carries the roster, and all bids must fit one request
MAX_AMOUNT: Final = 10**15 - 1  # every JSON reader has integers up to 2**53 - 1

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_ROUND_ID: Final = re.compile(r"[!-~]{1,64}")
# All digits are always written, or the length of the ciphertext would tell how many there are.
_AMOUNT_DIGITS: Final = 15
_AMOUNT: Final = re.compile(rf"[0-9]{{{_AMOUNT_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Round:
    """One auction: its id and its bidders.

    `id` is 1 to 64 printable ASCII characters, `roster` the bidders' Ed25519 public keys (32 bytes
    each) in the order that all bidders have agreed on. The order decides between equal bids.

    Raises:
        MessageError: a malformed id or key, a key given twice, or too few or too many bidders.
    """

    id: str
    roster: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not _ROUND_ID.fullmatch(self.id):
            raise MessageError("the round's id is not 1 to 64 printable characters without spaces")
        if not MIN_BIDDERS <= len(self.roster) <= MAX_BIDDERS:
            raise MessageError(f"the roster has not {MIN_BIDDERS} to {MAX_BIDDERS} bidders")
        if any(len(key) != _KEY_BYTES for key in self.roster):
            raise MessageError(f"a bidder's key is not {_KEY_BYTES} bytes")
        if len(set(self.roster)) != len(self.roster):
            raise MessageError("the roster names a bidder twice")

    def digest(self) -> bytes:
        """Return the 32 bytes by which a result names this round."""
        return hashlib.sha256(
            _join(f"{NAME} round".encode(), self.id.encode(), *self.roster)
        ).digest()


@dataclass(frozen=True, slots=True)
class Bid:
    """One bidder's signed bid. `amount` is 0 to `MAX_AMOUNT`, in a unit the bidders agree on."""

    round: Round
    bidder: bytes
    amount: int = field(repr=False)
    signature: bytes = field(repr=False)

    @staticmethod
    def to_sign(round_: Round, bidder: bytes, amount: int) -> bytes:
        """Return the bytes that the bidder signs: no other values have the same."""
        return _join(f"{NAME} bid".encode(), round_.digest(), bidder, amount.to_bytes(8, "big"))

    def is_signed(self) -> bool:
        """Tell whether the signature is the bidder's own."""
        message = self.to_sign(self.round, self.bidder, self.amount)
        try:
            Ed25519PublicKey.from_public_bytes(self.bidder).verify(self.signature, message)
        except InvalidSignature:
            return False
        return True

    def encode(self) -> bytes:
        """Return the plaintext to encrypt: JSON, of the same length for every amount."""
        return to_json(
            {
                "round": self.round.id,
                "roster": [to_base64(key) for key in self.round.roster],
                "bidder": to_base64(self.bidder),
                "amount": f"{self.amount:0{_AMOUNT_DIGITS}}",
                "signature": to_base64(self.signature),
            }
        )

    @classmethod
    def parse(cls, plaintext: bytes) -> Bid:
        """Return the bid in `plaintext`. Its signature is not checked.

        Raises:
            MessageError: not a bid.
        """
        fields = parse_json_object(plaintext)
        round_id, roster, amount = (fields.get(name) for name in ("round", "roster", "amount"))
        if not isinstance(round_id, str) or not isinstance(roster, list) or len(fields) != 5:
            raise MessageError("not the fields of a bid")
        if not isinstance(amount, str) or not _AMOUNT.fullmatch(amount):
            raise MessageError("the amount is malformed")
        bidder, signature = (Fields("", fields).data(name) for name in ("bidder", "signature"))
        if len(bidder) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
            raise MessageError("the bidder or the signature is malformed")
        keys = tuple(from_base64(key if isinstance(key, str) else "=") for key in roster)
        return cls(Round(round_id, keys), bidder, int(amount), signature)


@dataclass(frozen=True, slots=True)
class Result:
    """The winner of a round (an Ed25519 public key), who pays `price`: the second highest bid.

    `round_sha256` is the `Round.digest` of the round.
    """

    round_sha256: bytes
    winner: bytes
    price: int

    def __str__(self) -> str:
        """Return the line that `decrypt` prints."""
        winner, round_ = to_base64(self.winner), to_base64(self.round_sha256)
        return f"Winner {winner} pays {self.price} (round {round_})"

    def fields(self) -> dict[str, object]:
        """Return what the enclave attests."""
        return {
            "round": to_base64(self.round_sha256),
            "winner": to_base64(self.winner),
            "price": self.price,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Result:
        """Return the result whose `fields` these are, and no others.

        Raises:
            MessageError: other fields, or a value that no result has.
        """
        round_sha256, winner = (Fields("", fields).data(name) for name in ("round", "winner"))
        price = fields.get("price")
        if len(fields) != 3 or len(round_sha256) != 32 or len(winner) != _KEY_BYTES:
            raise MessageError("not the result of a round")
        if type(price) is not int or not 0 <= price <= MAX_AMOUNT:
            raise MessageError("not a price")
        return cls(round_sha256, winner, price)


def compute(plaintexts: Sequence[bytes]) -> Result:
    """Return who wins the round that all plaintexts are bids of.

    Of equal highest bids, that of the bidder who comes first in the roster wins.

    Raises:
        ComputationError: not a complete round. The text says which rule is broken, by no message
            in particular.
    """
    try:
        bids = [Bid.parse(plaintext) for plaintext in plaintexts]
    except MessageError:
        raise ComputationError("not every message is a bid") from None
    if len({bid.round for bid in bids}) != 1:
        raise ComputationError("the bids are not all of one round")
    round_ = bids[0].round
    if sorted(bid.bidder for bid in bids) != sorted(round_.roster):
        raise ComputationError("not every bidder of the roster has bid exactly once")
    if not all(bid.is_signed() for bid in bids):
        raise ComputationError("not every bid is signed by its bidder")
    first, second = sorted(bids, key=lambda bid: (-bid.amount, round_.roster.index(bid.bidder)))[:2]
    return Result(round_.digest(), first.bidder, second.amount)


def _join(*parts: bytes) -> bytes:
    """Return the parts, each after its length: no other parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
