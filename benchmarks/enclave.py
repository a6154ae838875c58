"""Requests a second and memory of the enclave's program, as the emulator runs it."""

from __future__ import annotations

import os
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cbor2

from benchmarks.programs import Place, place
from benchmarks.report import Measurement, Section, ratio_of
from benchmarks.rounds import Contestant, rate, take
from foobar_instance.enclave_client import EnclaveClient
from foobar_shared import hpke
from foobar_shared.addresses import Address, connect, parse_address
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
        address = parse_address(here.emulator.environment["FOOBAR_ENCLAVE"])
        get = encode_request(GetAttestationRequest(secrets.token_bytes(NONCE_BYTES))) + b"\n"
        compute = _compute_line(here, address)
        nsm = here.emulator.enclave.nsm
        request = cbor2.dumps({"Attestation": {"user_data": None, "nonce": bytes(32)}})
        measured = take(
            [
                Contestant(
                    "the emulated module alone",
                    lambda: rate(lambda: nsm.exchange(request), seconds=seconds),
                ),
                *(
                    Contestant(
                        f"{name}, {clients} client{'s' * (clients > 1)}",
                        partial(_load, address, line, clients, seconds),
                    )
                    for name, line in (("getAttestation", get), ("compute of 1 message", compute))
                    for clients in (1, _CLIENTS)
                ),
            ],
            rounds=rounds,
            unit="requests/s",
        )
        process = _enclave_process()
        before = Measurement("peak memory after all of this", "MiB", (_peak_mib(process),))
        _load(address, get, _CLIENTS, seconds * 10)
        after = Measurement("peak memory after 10 seconds more", "MiB", (_peak_mib(process),))
    module, one, many, compute_one, compute_many = measured.values()
    return Section(
        "enclave",
        "Lines over a unix socket to the enclave's program, a process of its own. The clients and "
        "the emulated module, which signs each document with P-384, share one Python process.",
        (*measured.values(), before, after),
        (
            ratio_of(one, module, bound=0.5),
            ratio_of(many, module, bound=0.5),
            ratio_of(compute_one, one),
            ratio_of(compute_many, many),
            ratio_of(after, before, bound=1.05, better="lower"),
        ),
    )


def _compute_line(here: Place, address: Address) -> bytes:
    """Return a request of one message that the enclave can answer again and again."""
    message = hpke.parse(hpke.seal(b"attack at dawn", here.key.public_key, here.key.key_arn))
    assert message is not None  # noqa: S101 - it is of format 2
    with EnclaveClient(address) as enclave:
        document = enclave.ask(GetAttestationRequest(secrets.token_bytes(NONCE_BYTES)))
    secret = here.derive(here.emulator.kms_client(), message.enc, document)
    return (
        encode_request(
            ComputeRequest(
                here.key.key_arn,
                here.key.public_key,
                (ComputeMessage(secret, message.enc, message.ciphertext),),
                secrets.token_bytes(NONCE_BYTES),
            )
        )
        + b"\n"
    )


def _load(address: Address, line: bytes, clients: int, seconds: float) -> float:
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


def _enclave_process() -> int:
    """Return the process id of the enclave, a child of this process."""
    for tasks in Path(f"/proc/{os.getpid()}/task").iterdir():
        for child in (tasks / "children").read_text().split():
            if b"emulator.enclave" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise RuntimeError("the emulator's enclave is not running")


def _peak_mib(process: int) -> float:
    """Return the most memory that was resident: VmHWM of proc(5)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
