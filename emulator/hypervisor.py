"""The Nitro hypervisor's part: starts enclaves, gives each its NSM, and ends them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

import emulator
from emulator.channel import serve_requests
from emulator.clock import Clock
from emulator.errors import EnclaveFailedError
from emulator.identity import Instance
from emulator.image_measurements import measure_enclave, pcr_bank
from emulator.pki import NitroPki
from emulator.virtual_nsm import EmulatedNsm
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import EnclaveRefusedError, EnclaveUnavailableError
from foobar_shared.addresses import UnixAddress, listen
from foobar_shared.messages import GetAttestationRequest

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class EnclaveHost:
    """Where enclaves run. `console` gets their logs; None is standard error."""

    instance: Instance
    pki: NitroPki
    relay: UnixAddress
    ca_file: Path
    console: IO[bytes] | None


class RunningEnclave:
    """An enclave process, and the NSM that the emulator plays for it.

    Attributes:
        address: where it serves.
        measurements: PCR0 to PCR2 of its image, also where it runs in debug mode.
        pcrs: the PCRs at its start that are not zero.
        nsm: its security module.
    """

    def __init__(
        self,
        host: EnclaveHost,
        *,
        address: UnixAddress,
        name: str,
        measured: bytes,
        debug: bool,
        clock: Clock,
    ) -> None:
        """Start the process; `Emulator.start_enclave` says what the arguments are."""
        self.address = address
        self.measurements = measure_enclave(measured)
        self.pcrs = pcr_bank(self.measurements, host.instance, debug=debug)
        self.nsm = EmulatedNsm(
            host.pki,
            module_id=f"{host.instance.instance_id}-enc{sha256(name.encode()).hexdigest()[:16]}",
            pcrs=self.pcrs,
            clock=clock,
        )
        self._channel, enclave_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with enclave_end, listen(address) as listener:
            self._process = _spawn(listener, enclave_end, host)
        self._thread = threading.Thread(
            target=serve_requests, args=(self._channel, self.nsm.exchange), name="nsm"
        )
        self._thread.start()

    @property
    def exit_code(self) -> int | None:
        """Return the process's exit code; None while it runs."""
        return self._process.poll()

    def wait_until_ready(self) -> None:
        """Return once the enclave has answered a request for an attestation.

        Raises:
            EnclaveFailedError: it ended or refused, or did not answer in time.
        """
        try:
            with EnclaveClient(self.address, answer_seconds=_START_SECONDS) as client:
                client.ask(GetAttestationRequest())
        except (EnclaveRefusedError, EnclaveUnavailableError):
            ended = self._process.poll()
            state = "does not answer" if ended is None else f"ended with exit code {ended}"
            raise EnclaveFailedError(f"the enclave {state}; its log above says why") from None

    def stop(self) -> int:
        """End the process and its NSM; return the exit code, 0 where it ended cleanly."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(OSError):  # the enclave's end is closed already
            self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._channel.close()
        return self._process.returncode


def _spawn(
    listener: socket.socket, nsm: socket.socket, host: EnclaveHost
) -> subprocess.Popen[bytes]:
    """Start the process: no environment but Python's path, no descriptor but its own."""
    descriptors = (listener.fileno(), nsm.fileno())
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "emulator.enclave"),
            *("--listener", str(descriptors[0]), "--nsm", str(descriptors[1])),
            *("--relay", str(host.relay), "--ca-file", str(host.ca_file)),
        ],
        env={"PYTHONPATH": str(Path(emulator.__path__[0]).parent), "PATH": os.defpath},
        stdin=subprocess.PIPE,
        stdout=host.console,
        stderr=host.console,
        pass_fds=descriptors,
        start_new_session=True,  # a terminal's Ctrl-C is for the emulator, which ends its enclaves
    )
