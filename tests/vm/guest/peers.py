"""Two simple peers: `hold` accepts and never answers, `dial` prints how its connection ends."""

import argparse
import time
from collections.abc import Sequence
from typing import Final

from foobar_shared.addresses import Address, connect, listen, parse_address

LISTENING: Final = "listening"
ACCEPTED: Final = "accepted"
CLOSED: Final = "closed without a byte"
SECONDS: Final = 20.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the peer that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.peers", description=__doc__)
    parser.add_argument("role", choices=["hold", "dial"])
    parser.add_argument("address", type=parse_address)
    options = parser.parse_args(arguments)
    if options.role == "hold":
        _hold(options.address)
    else:
        _say(_dial(options.address))


def _hold(address: Address) -> None:
    """Take connections, and keep them open until this process is killed."""
    held = []
    with listen(address) as listener:
        _say(LISTENING)
        while True:
            connection, _ = listener.accept()
            held.append(connection)
            _say(ACCEPTED)


def _dial(address: Address) -> str:
    """Send a byte, and return how the connection ends."""
    started = time.monotonic()
    try:
        with connect(address, seconds=SECONDS) as connection:
            connection.sendall(b"x")
            received = connection.recv(1)
    except TimeoutError:
        return f"nothing in {time.monotonic() - started:.0f} seconds"
    except (ConnectionResetError, BrokenPipeError):
        return CLOSED
    except OSError as error:
        return f"errno {error.errno}"
    return f"answered {received!r}" if received else CLOSED


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
