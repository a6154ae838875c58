"""An enclave in a process of its own: `run()` with the stand-in for the module.

Arguments: path of the socket to listen on, and of the relay's; `debug` for a debug enclave.
"""

from __future__ import annotations

import os
import sys

from foobar_enclave.main import run
from foobar_shared.addresses import UnixAddress, connect, listen
from tests.foobar_enclave.fakes import PCR0, FakeNsm


def main() -> None:
    path, relay, *debug = sys.argv[1:]
    nsm = FakeNsm(pcr0=bytes(48) if debug else PCR0)
    with listen(UnixAddress(f"{path}.new")) as listener:
        os.rename(f"{path}.new", path)  # noqa: PTH104 - who sees the path can connect
        run(
            nsm=nsm.device,
            listener=listener,
            connect=lambda: connect(UnixAddress(relay), seconds=1),
        )


if __name__ == "__main__":
    main()
