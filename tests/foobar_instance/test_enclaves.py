"""Several enclaves: asked in turn, left out where they fail; documents and connections kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from foobar_instance.enclaves import Enclave, Enclaves
from foobar_instance.errors import EnclaveUnavailableError, NotVerifiedError
from foobar_shared.addresses import UnixAddress
from foobar_shared.framing import LineSocket
from foobar_shared.messages import AttestationResponse, GetAttestationRequest, encode_response
from tests.foobar_instance.conftest import Told
from tests.foobar_instance.peers import SECONDS, serving

ADDRESSES = [UnixAddress(f"/{name}") for name in "abc"]
ANSWER = encode_response(AttestationResponse("getAttestation", b"document"))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_they_are_asked_in_turn(told: Told) -> None:
    enclaves = Enclaves(ADDRESSES, told)
    asked = [str(enclaves.run(lambda enclave: enclave.address)) for _ in range(6)]
    assert asked == ["unix:/a", "unix:/b", "unix:/c"] * 2


def test_one_that_fails_is_left_out_and_said_once(told: Told) -> None:
    enclaves = Enclaves(ADDRESSES, told)
    asked: list[str] = []

    def action(enclave: Enclave) -> str:
        asked.append(str(enclave.address))
        if asked[-1] == "unix:/b":
            raise EnclaveUnavailableError("it is gone")
        return asked[-1]

    assert len({enclaves.run(action) for _ in range(10)}) == 2
    assert asked.count("unix:/b") == 1
    assert told.warnings == ["the enclave at unix:/b is left out: it is gone"]


def test_where_none_is_left_the_last_error_is_raised(told: Told) -> None:
    enclaves = Enclaves(ADDRESSES[:1], told)

    def fail(_: Enclave) -> None:
        raise EnclaveUnavailableError("it is gone")

    for _ in range(2):
        with pytest.raises(EnclaveUnavailableError, match="it is gone"):
            enclaves.run(fail)
    with pytest.raises(EnclaveUnavailableError, match="it is gone"):
        enclaves.run_on_each(fail)
    assert told.warnings == []


def test_another_failure_is_the_callers(told: Told) -> None:
    def refuse(_: Enclave) -> None:
        raise NotVerifiedError("another image")

    for run in (Enclaves(ADDRESSES, told).run, Enclaves(ADDRESSES, told).run_on_each):
        with pytest.raises(NotVerifiedError):
            run(refuse)


def test_a_document_is_used_for_a_minute() -> None:
    clock, numbers = Clock(), count()
    enclave = Enclave(ADDRESSES[0], clock)

    def fetch() -> bytes:
        return b"%d" % next(numbers)

    assert [enclave.recipient(fetch) for _ in range(3)] == [b"0"] * 3
    clock.now += 59
    assert enclave.recipient(fetch) == b"0"
    clock.now += 1
    assert enclave.recipient(fetch) == b"1"
    # of several threads whose document is refused, the first fetches a new one
    assert [enclave.recipient(fetch, refused=b"1") for _ in range(2)] == [b"2"] * 2


@contextmanager
def counting() -> Iterator[tuple[UnixAddress, list[int]]]:
    """An enclave that writes down which connection each request came over."""
    connections, asked = count(), []

    def serve(connection: object) -> None:
        number = next(connections)
        lines = LineSocket(connection)  # type: ignore[arg-type]
        while lines.read_line(idle=SECONDS, within=SECONDS) is not None:
            asked.append(number)
            lines.send_line(ANSWER, within=SECONDS)

    with serving(serve) as address:
        yield address, asked


def test_a_connection_is_kept_until_it_was_idle_for_long() -> None:
    clock = Clock()
    with counting() as (address, asked):
        enclave = Enclave(address, clock)
        for seconds in (0, 29, 29, 31):
            clock.now += seconds
            assert enclave.ask(GetAttestationRequest(None)) == b"document"
        enclave.close()
    assert asked == [0, 0, 0, 1]
