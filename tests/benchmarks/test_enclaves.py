"""The harness around the enclave's program: real processes, few requests, no time asserted."""

from __future__ import annotations

import pytest

from benchmarks.enclaves import Load, enclave, load
from foobar_shared.messages import NONCE_BYTES, GetAttestationRequest, encode_request

GET = encode_request(GetAttestationRequest(bytes(NONCE_BYTES)))


def test_clients_are_answered_and_counted() -> None:
    with enclave("canned") as running:
        seen = load(running.address, GET, clients=3, requests=20)
        peak = running.peak_memory()
        with pytest.raises(RuntimeError, match="error"):
            load(running.address, b"{}", clients=1)
    assert len(seen.latencies) >= 20
    assert list(seen.latencies) == sorted(seen.latencies)
    assert peak > 1
    assert running.process.returncode == 0


def test_rates_and_quantiles() -> None:
    seen = Load(2.0, [0.1, 0.2, 0.3, 0.4])
    assert seen.rate == 2
    assert (seen.quantile(0.5), seen.quantile(0.99)) == (0.3, 0.4)
