"""The enclaves that a command may ask: kept connections and documents, and who has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Final, TypeVar

from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import EnclaveUnavailableError
from foobar_instance.terminal import Progress
from foobar_shared.addresses import Address
from foobar_shared.messages import Request, encode_request, name_of
from foobar_shared.timeouts import REQUEST_IDLE

T = TypeVar("T")

_DOCUMENT_SECONDS: Final = 60.0
"""How long one recipient document is used; KMS takes one for five minutes."""

_IDLE_SECONDS: Final = REQUEST_IDLE / 2
"""How long an unused connection is kept; the enclave closes it after `REQUEST_IDLE`."""


class Enclave:
    """One enclave. Its RSA key, and so its documents and KMS's answers, are its alone."""

    def __init__(self, address: Address, clock: Callable[[], float]) -> None:
        """Keep the address; nothing is sent yet. `clock` is monotonic, in seconds."""
        self.address = address
        self._clock = clock
        self._idle: list[tuple[float, EnclaveClient]] = []
        self._fetching = threading.Lock()
        self._document: tuple[float, bytes] | None = None

    def ask(self, request: Request) -> bytes:
        """Return the raw document that answers `request`, over a connection of its own.

        Raises:
            EnclaveRefusedError: the enclave answered an error, or no valid response.
            EnclaveUnavailableError: nobody listens, or the connection was lost.
        """
        return self.ask_line(encode_request(request), name_of(request))

    def ask_line(self, line: bytes, name: str) -> bytes:
        """Return the answer to a request line with the name `name`, and raise, as `ask` does."""
        with self._connection() as client:
            return client.ask_line(line, name)

    def recipient(self, fetch: Callable[[], bytes], *, refused: bytes | None = None) -> bytes:
        """Return an attestation document of at most a minute, from `fetch` if there is none.

        `refused` is one that KMS no longer takes: it is not returned again.
        """
        with self._fetching:
            if self._document:
                since, document = self._document
                if document != refused and self._clock() - since < _DOCUMENT_SECONDS:
                    return document
            since = self._clock()
            self._document = (since, fetch())
            return self._document[1]

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()

    @contextmanager
    def _connection(self) -> Iterator[EnclaveClient]:
        client = self._kept() or EnclaveClient(self.address)
        try:
            yield client
        except BaseException:
            client.close()  # its next line might answer this request
            raise
        self._idle.append((self._clock(), client))

    def _kept(self) -> EnclaveClient | None:
        while True:
            try:  # two threads may ask for the last one
                since, client = self._idle.pop()
            except IndexError:
                return None
            if self._clock() - since < _IDLE_SECONDS:
                return client
            client.close()


class Enclaves:
    """Several enclaves of one image, asked in turn. Safe to use from several threads."""

    def __init__(
        self,
        addresses: Sequence[Address],
        progress: Progress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the addresses; nothing is sent yet. `clock` is monotonic, in seconds."""
        self._answering = [Enclave(address, clock) for address in addresses]
        self._progress = progress
        self._turn = count()
        self._lock = threading.Lock()
        self._error = EnclaveUnavailableError("no enclave is named: give --enclave")

    def run(self, action: Callable[[Enclave], T]) -> T:
        """Return what `action` returns for one enclave; one that fails it is left out for good.

        Raises:
            EnclaveUnavailableError: none is left.
        """
        while True:
            with self._lock:
                if not self._answering:
                    raise self._error
                enclave = self._answering[next(self._turn) % len(self._answering)]
            try:
                return action(enclave)
            except EnclaveUnavailableError as error:
                self._leave_out(enclave, error)

    def run_on_each(self, action: Callable[[Enclave], object]) -> None:
        """Run `action` once for each enclave; one that fails it is left out for good.

        Raises:
            EnclaveUnavailableError: none is left.
        """
        for enclave in list(self._answering):
            try:
                action(enclave)
            except EnclaveUnavailableError as error:
                self._leave_out(enclave, error)
        if not self._answering:
            raise self._error

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for enclave in self._answering:
            enclave.close()

    def _leave_out(self, enclave: Enclave, error: EnclaveUnavailableError) -> None:
        with self._lock:
            if enclave not in self._answering:
                return  # another thread was first
            self._answering.remove(enclave)
            self._error = error
            others = len(self._answering)
        enclave.close()
        if others:
            self._progress.warn(f"the enclave at {enclave.address} is left out: {error}")
