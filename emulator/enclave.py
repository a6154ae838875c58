"""One emulated enclave: the real service in a process of its own.

It gets what an enclave has and nothing else: a listener, a way to the relay, an NSM. The NSM is
the far end of a socket pair; at the near end the emulator answers, as the hypervisor does. No key
that signs attestation documents is in this process.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from emulator.channel import SocketTransport
from foobar_enclave.main import run
from foobar_enclave.nsm import NsmDevice
from foobar_shared.addresses import connect, parse_address
from foobar_shared.timeouts import RELAY_CONNECT


def main() -> None:
    """Serve until SIGTERM, or until the emulator is gone."""
    options = _options()
    relay = parse_address(options.relay)
    transport = SocketTransport(socket.socket(fileno=options.nsm))
    threading.Thread(target=_end_with_the_emulator, daemon=True).start()
    with socket.socket(fileno=options.listener) as listener:
        run(
            nsm=NsmDevice(transport=transport),
            listener=listener,
            connect=lambda: connect(relay, seconds=RELAY_CONNECT),
            ca_file=options.ca_file,
        )


def _end_with_the_emulator() -> None:
    """Standard input is a pipe that the emulator holds open and never writes to."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulator.enclave", description=__doc__)
    parser.add_argument("--listener", type=int, required=True, help="descriptor of a listener")
    parser.add_argument("--nsm", type=int, required=True, help="descriptor of the NSM's socket")
    parser.add_argument("--relay", required=True, help="address of the relay to KMS")
    parser.add_argument("--ca-file", type=Path, required=True, help="CA that signs KMS (PEM)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
