"""What the enclave holds in memory, and how soon it listens, beside what it stands on.

Asks 100,000 requests: half a minute to two, whatever the number of rounds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from benchmarks.enclaves import Enclave, enclave, load
from benchmarks.processes import Interpreter, interpreter
from benchmarks.report import Measurement, Ratio, Section, ratio_of
from foobar_shared.messages import NONCE_BYTES, GetAttestationRequest, encode_request

_CLIENTS: Final = 8
_SOME: Final = 10_000
_ALL: Final = 100_000
_GROWTH: Final = 1.01  # the allocator's own noise

_PEER_CODE: Final = (
    "import boto3, cryptography.x509; "
    "from cryptography.hazmat.primitives.asymmetric import rsa; "
    "rsa.generate_private_key(public_exponent=65537, key_size=2048); "
    "boto3.client('kms', region_name='us-east-1')"
)
_REPORT: Final = (
    "; print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
)
_PASS: Final = "python -c pass"  # noqa: S105 - the statement
_PEER: Final = "boto3's KMS client with cryptography alone"
_PEAK: Final = f"the enclave, peak after {_SOME:,} requests"
_LATER: Final = f"the enclave, peak after {_ALL:,} requests"
_START: Final = "the enclave, start to its first answer"
_PEER_START: Final = f"{_PEER}, start to end"
_PASS_START: Final = f"{_PASS}, start to end"


def run(rounds: int) -> Section:
    """MiB of peak resident memory, and milliseconds."""
    memory: dict[str, list[float]] = {_PASS: [], _PEER: [], _PEAK: [], _LATER: []}
    times: dict[str, list[float]] = {_PASS_START: [], _PEER_START: [], _START: []}
    with interpreter() as python:
        for number in range(rounds + 1):
            empty, empty_ms = _process(python, "pass")
            peer, peer_ms = _process(python, _PEER_CODE)
            with enclave("canned", python.environment) as running:
                if not number:
                    continue  # the round that compiles the modules does not count
                memory[_PEAK].append(_peak(running, _SOME))
                if number == rounds:
                    memory[_LATER].append(_peak(running, _ALL - _SOME))
            for times_of, value in zip(
                times.values(), (empty_ms, peer_ms, running.started * 1000), strict=True
            ):
                times_of.append(value)
            memory[_PASS].append(empty)
            memory[_PEER].append(peer)
    return _section(memory, times)


def _section(memory: dict[str, list[float]], times: dict[str, list[float]]) -> Section:
    measured = {
        who: Measurement(who, unit, tuple(samples))
        for whole, unit in ((memory, "MiB"), (times, "ms"))
        for who, samples in whole.items()
    }
    # The two peaks of the one process that went on: other processes' differ by more than it grows.
    later = measured[_LATER].samples[0] / measured[_PEAK].samples[-1]
    return Section(
        name="enclave-memory",
        work=f"Peak resident memory (VmHWM) of whole processes; {_CLIENTS} clients ask the enclave "
        "for attestations, of a module that signs nothing. Its first answer comes after the "
        "entropy and an RSA key of its own, which takes a random time; the peer makes one too.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(measured[_PEAK], measured[_PEER], bound=1.1, better="lower"),
            ratio_of(measured[_START], measured[_PEER_START], bound=1.1, better="lower"),
            Ratio(f"peak after {_ALL:,} / after {_SOME:,}", later, _GROWTH, "lower"),
            ratio_of(measured[_PEAK], measured[_PASS]),
            ratio_of(measured[_START], measured[_PASS_START]),
        ),
    )


def _peak(running: Enclave, requests: int) -> float:
    line = encode_request(GetAttestationRequest(bytes(NONCE_BYTES)))
    load(running.address, line, clients=_CLIENTS, requests=requests)
    return running.peak_memory()


def _process(python: Interpreter, code: str) -> tuple[float, float]:
    """Peak memory in MiB and milliseconds of a process that ends by telling its peak."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + _REPORT],
        env=python.environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout) / 1024, (time.perf_counter() - began) * 1000
