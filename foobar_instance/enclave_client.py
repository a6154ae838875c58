"""One conversation with the enclave: a request line out, a bounded response line back."""

from __future__ import annotations

import logging
import socket
from typing import Final, Self

from foobar_instance.errors import EnclaveRefusedError, EnclaveUnavailableError
from foobar_instance.terminal import one_line
from foobar_shared.addresses import Address, connect
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_COMPUTE_LINE, MAX_LINE, LineSocket
from foobar_shared.messages import ErrorResponse, Request, encode_request, name_of, parse_response
from foobar_shared.timeouts import ENCLAVE_ANSWER, ENCLAVE_CONNECT, ENCLAVE_LINE, ENCLAVE_SEND

_log: Final = logging.getLogger(__name__)


class EnclaveClient:
    """A connection to the enclave. Whatever it answers may be the parent's word."""

    def __init__(self, address: Address, *, answer_seconds: float = ENCLAVE_ANSWER) -> None:
        """Connect; every answer must begin within `answer_seconds`.

        Raises:
            EnclaveUnavailableError: nobody listens there.
        """
        try:
            self._socket: socket.socket = connect(address, seconds=ENCLAVE_CONNECT)
        except OSError as error:
            raise EnclaveUnavailableError(
                f"no enclave answers at {address} ({error.strerror or 'timed out'}): start it, or "
                "name its address with --enclave"
            ) from error
        _log.debug("connected to the enclave at %s", address)
        self._lines = LineSocket(self._socket)
        self._answer_seconds = answer_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, request: Request) -> bytes:
        """Return the raw attestation document that answers `request`; nothing is verified yet.

        Raises:
            EnclaveRefusedError: the enclave answered an error, or no valid response.
            EnclaveUnavailableError: the connection was lost, or no answer came in time.
        """
        return self.ask_line(encode_request(request), name_of(request))

    def ask_line(self, line: bytes, name: str) -> bytes:
        """Return the answer to a request line that is there already, and raise, as `ask` does.

        `name` is the request's, such as `decrypt`: only an answer to such a one is taken.
        """
        _log.debug("asking %s in %d bytes", name, len(line))
        longest = MAX_COMPUTE_LINE if name == "compute" else MAX_LINE
        if len(line) >= longest:
            raise EnclaveRefusedError(
                f"the {name} request is longer than {longest} bytes: the enclave takes no more"
            )
        try:
            self._lines.send_line(line, within=ENCLAVE_SEND, longest=longest)
            answer = self._lines.read_line(idle=self._answer_seconds, within=ENCLAVE_LINE)
        except (MessageError, OSError) as error:
            raise EnclaveUnavailableError(
                f"the connection to the enclave was lost ({one_line(error)}): is it still running?"
            ) from error
        if answer is None:
            raise EnclaveUnavailableError(
                "the enclave closed the connection without an answer: see its console"
            )
        _log.debug("answered in %d bytes", len(answer))
        return _attestation(answer, name)


def _attestation(answer: bytes, name: str) -> bytes:
    try:
        response = parse_response(answer)
    except MessageError as error:
        raise EnclaveRefusedError(f"the enclave's answer is malformed: {error}") from error
    if isinstance(response, ErrorResponse):
        raise EnclaveRefusedError(f"the enclave refused {name}: {one_line(response.text)}")
    if response.name != name:
        raise EnclaveRefusedError(f"the enclave answered {response.name} to {name}")
    return response.attestation
