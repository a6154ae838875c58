"""Senders within the announced credit are never found wrong, and those beyond it always are."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.vm.flow_control import Flow
from tests.vm.vsock_packet import (
    MAX_PAYLOAD,
    OP_CREDIT_UPDATE,
    OP_REQUEST,
    OP_RESPONSE,
    OP_RW,
    TYPE_STREAM,
    Header,
)

BUFFER = 1000
REQUEST = Header(3, 16, 1024, 1000, 0, TYPE_STREAM, OP_REQUEST, 0, BUFFER, 0)
ANSWER = Header(16, 3, 1000, 1024, 0, TYPE_STREAM, OP_RESPONSE, 0, BUFFER, 0)


def opened() -> Flow:
    flow = Flow(REQUEST)
    assert flow.within_credit(REQUEST)
    assert flow.within_credit(ANSWER)
    return flow


def data(length: int) -> Header:
    return replace(REQUEST, operation=OP_RW, length=length)


def taken(forwarded: int, buffer_size: int = BUFFER) -> Header:
    return replace(
        ANSWER,
        operation=OP_CREDIT_UPDATE,
        forwarded=forwarded % (1 << 32),
        buffer_size=buffer_size,
    )


def test_nothing_may_be_sent_before_the_answer() -> None:
    flow = Flow(REQUEST)
    assert flow.within_credit(REQUEST)
    assert not flow.within_credit(data(1))


def test_what_is_taken_may_be_sent_again() -> None:
    flow = opened()
    assert flow.within_credit(data(BUFFER))
    assert flow.within_credit(taken(10))
    assert flow.within_credit(data(10))
    assert not flow.within_credit(data(1))


def test_packets_without_payload_take_no_credit() -> None:
    flow = Flow(REQUEST)
    assert flow.within_credit(taken(5, buffer_size=0))
    assert flow.within_credit(replace(REQUEST, operation=OP_CREDIT_UPDATE))


def test_each_direction_has_its_own_credit() -> None:
    flow = opened()
    assert flow.within_credit(data(BUFFER))
    assert flow.within_credit(replace(ANSWER, operation=OP_RW, length=BUFFER))


@pytest.mark.parametrize("late", [taken(0), taken(BUFFER, buffer_size=1)])
def test_a_late_or_smaller_announcement_takes_nothing_back(late: Header) -> None:
    flow = opened()
    assert flow.within_credit(data(BUFFER))
    assert flow.within_credit(taken(BUFFER))
    assert flow.within_credit(late)
    assert flow.within_credit(data(BUFFER))


@given(
    buffer=st.integers(1, 1 << 31),
    rounds=st.lists(st.tuples(st.integers(0, MAX_PAYLOAD), st.floats(0, 1)), max_size=50),
    before=st.integers(0, (1 << 32) - 1),
)
@example(buffer=BUFFER, rounds=[(BUFFER, 0.5), (BUFFER, 1)], before=(1 << 32) - 1)
@example(buffer=BUFFER, rounds=[], before=(1 << 32) - 1)
def test_a_sender_is_refused_at_the_first_byte_too_many(
    buffer: int, rounds: list[tuple[int, float]], before: int
) -> None:
    flow = opened()
    sent = received = _sent_before(flow, before)
    assert flow.within_credit(taken(received, buffer))
    room = max(buffer, BUFFER)
    for wanted, share in rounds:
        length = min(wanted, room - (sent - received))
        sent += length
        assert flow.within_credit(data(length))
        received += int((sent - received) * share)
        assert flow.within_credit(taken(received, buffer))
    assert not flow.within_credit(data(room - (sent - received) + 1))


def _sent_before(flow: Flow, count: int) -> int:
    """Let a stream be as old as this many bytes, so that its counters wrap around soon."""
    sent = 0
    for so_far in (count // 3, 2 * count // 3, count):
        flow.within_credit(data(so_far - sent))
        flow.within_credit(taken(so_far))
        sent = so_far
    return sent
