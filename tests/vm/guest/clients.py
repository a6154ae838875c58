"""Many clients at once: each asks the enclave for an attestation with a nonce of its own.

Prints a JSON list, one item a client: nonce and document in base64, or what went wrong.
"""

import argparse
import base64
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from foobar_shared.addresses import ENCLAVE, connect
from foobar_shared.framing import LineSocket
from foobar_shared.messages import (
    AttestationResponse,
    GetAttestationRequest,
    encode_request,
    parse_response,
)

SECONDS: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, all connected before the first one sends."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.clients", description=__doc__)
    parser.add_argument("count", type=int)
    count: int = parser.parse_args(arguments).count
    together = threading.Barrier(count, timeout=SECONDS)
    with ThreadPoolExecutor(max_workers=count) as pool:
        answers = list(pool.map(lambda index: _ask(index, together), range(count)))
    print(json.dumps(answers))  # noqa: T201


def _ask(index: int, together: threading.Barrier) -> dict[str, str]:
    nonce = index.to_bytes(32, "big")
    try:
        with connect(ENCLAVE, seconds=SECONDS) as connection:
            together.wait()
            lines = LineSocket(connection)
            lines.send_line(encode_request(GetAttestationRequest(nonce)), within=SECONDS)
            answer = lines.read_line(idle=SECONDS, within=SECONDS)
    except (OSError, threading.BrokenBarrierError) as error:
        return {"error": repr(error)}
    response = None if answer is None else parse_response(answer)
    if not isinstance(response, AttestationResponse):
        return {"error": f"answered {response!r}"}
    return {"nonce": _text(nonce), "document": _text(response.attestation)}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
