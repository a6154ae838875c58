"""Requests a second and memory of the enclave's program, as the emulator runs it."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cbor2

from benchmarks.programs import Place, place
from benchmarks.report import Measurement, Section, rate, ratio_of, take
from foobar_shared.addresses import Address, connect
from foobar_shared.messages import (
    NONCE_BYTES,
    ComputeMessage,
    ComputeRequest,
    GetAttestationRequest,
    encode_request,
)

_CLIENTS = 16


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure requests a second and MiB."""
    seconds = 0.01 if small else 1.0
    with place() as here:
        nsm = here.emulator.enclave.nsm
        request = cbor2.dumps({"Attestation": {"nonce": bytes(NONCE_BYTES)}})
        get = encode_request(GetAttestationRequest(bytes(NONCE_BYTES))) + b"\n"
        load = partial(_load, here.address, seconds)
        compute = _compute_line(here)
        measured = take(
            {
                "the emulated module alone": lambda: rate(
                    lambda: nsm.exchange(request), seconds=seconds
                ),
                "getAttestation, 1 client": lambda: load(get, 1),
                f"getAttestation, {_CLIENTS} clients": lambda: load(get, _CLIENTS),
                "compute of 1 message, 1 client": lambda: load(compute, 1),
                f"compute of 1 message, {_CLIENTS} clients": lambda: load(compute, _CLIENTS),
            },
            rounds=rounds,
            unit="requests/s",
        )
        before = Measurement("peak memory", "MiB", (_peak_mib(),))
        _load(here.address, seconds * 10, get, _CLIENTS)
        after = Measurement("peak memory 10 seconds later", "MiB", (_peak_mib(),))
    module, one, many, *_ = measured.values()
    return Section(
        "enclave",
        "Lines over a unix socket to the enclave's program, a process of its own. The clients and "
        "the emulated module, which signs each document with P-384, share one Python process.",
        (*measured.values(), before, after),
        (
            ratio_of(one, module, 0.5),
            ratio_of(many, module, 0.5),
            ratio_of(after, before, 1.05, at_most=True),
        ),
    )


def _compute_line(here: Place) -> bytes:
    """Return a request of one message that the enclave can answer again and again."""
    message, shared_secret = here.message()
    opened = ComputeMessage(shared_secret(), message.enc, message.ciphertext)
    key = here.key
    request = ComputeRequest(key.key_arn, key.public_key, (opened,), bytes(NONCE_BYTES))
    return encode_request(request) + b"\n"


def _load(address: Address, seconds: float, line: bytes, clients: int) -> float:
    """Return requests a second of clients that ask again as soon as they are answered."""
    deadline = time.perf_counter() + seconds

    def ask_on(connection: socket.socket) -> int:
        done = 0
        with connection, connection.makefile("rb") as answers:
            while not done or time.perf_counter() < deadline:
                connection.sendall(line)
                answer = answers.readline()
                if not answer or answer.startswith(b'{"error"'):
                    raise RuntimeError(f"the enclave answered {answer[:200]!r}")
                done += 1
        return done

    connections = [connect(address, seconds=30) for _ in range(clients)]
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        return sum(threads.map(ask_on, connections)) / (time.perf_counter() - began)


def _peak_mib() -> float:
    """Return the peak memory (VmHWM of proc(5)) of the enclave, a child of this process."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            if b"emulator.enclave" in Path(f"/proc/{child}/cmdline").read_bytes():
                status = Path(f"/proc/{child}/status").read_text()
                return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    raise RuntimeError("the emulator's enclave is not running")
