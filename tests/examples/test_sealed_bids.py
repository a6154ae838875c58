"""The auction, with the parent as the adversary: it holds the bids, picks, repeats and invents."""

import dataclasses
import json
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from examples.sealed_bids.bid import sign
from examples.sealed_bids.computation import (
    MAX_AMOUNT,
    MAX_BIDDERS,
    NAME,
    Bid,
    Result,
    Round,
    compute,
)
from foobar_shared.encoding import parse_json_object, to_base64, to_json
from foobar_shared.errors import ComputationError, MessageError

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 5)]
PUBLIC = tuple(key.public_key().public_bytes_raw() for key in KEYS)
ROUND = Round("2026-07", PUBLIC[:3])

NOT_A_BID = "not every message is a bid"
TWO_ROUNDS = "the bids are not all of one round"
INCOMPLETE = "not every bidder of the roster has bid exactly once"
UNSIGNED = "not every bid is signed by its bidder"


def bid(bidder: int, amount: int, round_: Round = ROUND) -> bytes:
    return sign(KEYS[bidder], round_, amount).encode()


def bids(*amounts: int) -> list[bytes]:
    return [bid(bidder, amount) for bidder, amount in enumerate(amounts)]


def refusal(plaintexts: Sequence[bytes]) -> str:
    with pytest.raises(ComputationError) as refused:
        compute(plaintexts)
    return str(refused.value)


def forged(*, bidder: int = 2, amount: int = 30) -> bytes:
    """Other values under the signature of the third bidder's bid of 30."""
    signed = Bid.parse(bid(2, 30))
    return dataclasses.replace(signed, bidder=PUBLIC[bidder], amount=amount).encode()


@pytest.mark.parametrize(
    ("amounts", "winner", "price"),
    [
        ((10, 30, 20), 1, 20),
        ((0, 0, 0), 0, 0),
        ((10, 30, 30), 1, 30),  # of equal bids, the first in the roster
        ((30, 10, 30), 0, 30),
        ((20, 10, 10), 0, 10),
        ((MAX_AMOUNT, 0, MAX_AMOUNT - 1), 0, MAX_AMOUNT - 1),
    ],
)
def test_the_highest_bidder_pays_the_second_price(
    amounts: tuple[int, ...], winner: int, price: int
) -> None:
    assert compute(bids(*amounts)) == Result(ROUND.digest(), PUBLIC[winner], price)


@given(st.permutations(bids(30, 30, 10)))
def test_the_order_of_messages_decides_nothing(plaintexts: list[bytes]) -> None:
    assert compute(plaintexts) == compute(bids(30, 30, 10))


def test_the_result_is_attested_without_loss() -> None:
    result = compute(bids(10, MAX_AMOUNT, MAX_AMOUNT))
    encoded = to_json(result.fields())
    assert len(encoded) <= 512
    assert Result.from_fields(parse_json_object(encoded)) == result
    assert str(result) == (
        f"Winner {to_base64(PUBLIC[1])} pays {MAX_AMOUNT} (round {to_base64(ROUND.digest())})"
    )


RESULT = compute(bids(10, 30, 20)).fields()


@pytest.mark.parametrize(
    "changes",
    [
        {"price": -1},
        {"price": MAX_AMOUNT + 1},
        {"price": True},
        {"price": "20"},
        {"winner": to_base64(bytes(31))},
        {"winner": None},
        {"round": to_base64(bytes(33))},
        {"more": 1},
    ],
)
def test_other_fields_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        Result.from_fields(RESULT | changes)


OTHER_ID = Round("2026-08", ROUND.roster)
OTHER_ROSTER = Round(ROUND.id, (*PUBLIC[:2], PUBLIC[3]))
OTHER_ORDER = Round(ROUND.id, ROUND.roster[::-1])
PAIR = bids(10, 20)


@pytest.mark.parametrize(
    ("plaintexts", "reason"),
    [
        pytest.param([], TWO_ROUNDS, id="nothing"),
        pytest.param(bids(10), INCOMPLETE, id="one bid"),
        pytest.param(PAIR, INCOMPLETE, id="a subset"),
        pytest.param([*bids(10, 20, 30), bid(2, 30)], INCOMPLETE, id="a bid twice"),
        pytest.param([*PAIR, bid(1, 20)], INCOMPLETE, id="a bid twice in another's place"),
        pytest.param([*PAIR, bid(1, 21)], INCOMPLETE, id="two bids of one bidder"),
        pytest.param([*PAIR, bid(3, 30)], INCOMPLETE, id="a made-up bidder"),
        pytest.param([*bids(10, 20, 30), bid(3, 30)], INCOMPLETE, id="one bidder more"),
        pytest.param([*PAIR, bid(2, 30, OTHER_ID)], TWO_ROUNDS, id="another round"),
        pytest.param([*PAIR, bid(2, 30, OTHER_ROSTER)], TWO_ROUNDS, id="another roster"),
        pytest.param([*PAIR, bid(2, 30, OTHER_ORDER)], TWO_ROUNDS, id="another order"),
        pytest.param([*PAIR, forged(amount=31)], UNSIGNED, id="an altered amount"),
        pytest.param([bid(0, 10), bid(2, 30), forged(bidder=1)], UNSIGNED, id="a stranger"),
        pytest.param([*PAIR, b"\xff"], NOT_A_BID, id="another message"),
        pytest.param([*PAIR, b"attack at dawn"], NOT_A_BID, id="a message of another service"),
    ],
)
def test_the_parent_is_refused(plaintexts: list[bytes], reason: str) -> None:
    assert refusal(plaintexts) == reason


@pytest.mark.parametrize("other", [OTHER_ID, OTHER_ROSTER, OTHER_ORDER])
def test_a_bid_is_not_moved_to_another_round(other: Round) -> None:
    # The parent writes another round into every bid, and keeps the signatures.
    moved = [
        dataclasses.replace(Bid.parse(plaintext), round=other).encode()
        for plaintext in bids(10, 20, 30)
    ]
    expected = INCOMPLETE if other is OTHER_ROSTER else UNSIGNED
    assert refusal(moved) == expected


def test_a_roster_of_the_parent_s_own_needs_bids_signed_for_it() -> None:
    # An honest bidder against the parent's bidder, whose price would be the honest bid.
    pair = Round(ROUND.id, (PUBLIC[0], PUBLIC[3]))
    honest = dataclasses.replace(Bid.parse(bid(0, 10)), round=pair).encode()
    assert refusal([honest, bid(3, MAX_AMOUNT, pair)]) == UNSIGNED


def test_no_two_rounds_have_the_same_digest() -> None:
    # The same bytes one after another, were they not each preceded by their length.
    one = Round("x", (b"a" * 32, b"b" * 32, b"c" * 32))
    other = Round("x" + "a" * 32, (b"b" * 32, b"c" * 32))
    assert one.digest() != other.digest()


def test_a_signature_for_another_purpose_is_no_bid() -> None:
    # The same values under another name and version.
    signed = Bid.to_sign(ROUND, PUBLIC[2], 30)
    assert f"{NAME} bid".encode() in signed
    for other in (signed.replace(NAME.encode(), b"foobar/sealed-bids/2"), ROUND.digest(), b""):
        signature = KEYS[2].sign(other)
        plaintext = Bid(ROUND, PUBLIC[2], 30, signature).encode()
        assert refusal([*PAIR, plaintext]) == UNSIGNED


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.lists(st.integers(0, MAX_AMOUNT), min_size=3, max_size=3),
)
def test_no_refusal_depends_on_an_amount(picked: list[int], amounts: list[int]) -> None:
    def answer(honest: list[bytes]) -> str:
        messages = [*honest, bid(3, 5), bid(2, 5, OTHER_ID), forged(amount=5), b"junk"]
        try:
            compute([messages[number] for number in picked])
        except ComputationError as error:
            return str(error)
        return "a result"

    assert answer(bids(*amounts)) == answer(bids(1, 2, 3))


def test_the_length_of_a_bid_says_nothing_about_its_amount() -> None:
    assert len({len(bid(0, amount)) for amount in (0, 9, 10, 12345, MAX_AMOUNT)}) == 1


FIELDS = json.loads(bid(0, 10))
KEY_TEXTS = [to_base64(key) for key in PUBLIC]


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 10},
        {"amount": "10"},
        {"amount": "-00000000000010"},
        {"amount": "1000000000000000"},
        {"amount": "00000000000001\u0966"},  # a digit, but not of ASCII
        {"round": ""},
        {"round": "x" * 65},
        {"round": "a b"},
        {"round": "x\n"},
        {"round": 7},
        {"roster": KEY_TEXTS[:1]},
        {"roster": []},
        {"roster": [KEY_TEXTS[0], KEY_TEXTS[0], KEY_TEXTS[1]]},
        {"roster": [*KEY_TEXTS[:2], to_base64(bytes(31))]},
        {"roster": [*KEY_TEXTS[:2], 1]},
        {"roster": [to_base64(bytes([number]) * 32) for number in range(MAX_BIDDERS + 1)]},
        {"roster": ",".join(KEY_TEXTS)},
        {"bidder": to_base64(bytes(31))},
        {"signature": to_base64(bytes(63))},
        {"more": 1},
    ],
)
def test_malformed_bids(changes: dict[str, object]) -> None:
    assert refusal([to_json(FIELDS | changes), *bids(10, 20, 30)[1:]]) == NOT_A_BID


@given(st.binary() | st.dictionaries(st.sampled_from(list(FIELDS)), st.text()).map(to_json))
def test_whatever_else_is_sealed_is_refused(plaintext: bytes) -> None:
    assert refusal([*PAIR, plaintext]) == NOT_A_BID


def test_a_roster_key_that_is_no_point_signs_nothing() -> None:
    round_ = Round("x", (PUBLIC[0], b"\xff" * 32))
    plaintexts = [bid(0, 10, round_), Bid(round_, b"\xff" * 32, 1, bytes(64)).encode()]
    assert refusal(plaintexts) == UNSIGNED


def test_neither_amount_nor_signature_is_shown() -> None:
    assert "12345" not in repr(sign(KEYS[0], ROUND, 12345))
