"""Many messages: `encrypt --lines` and `decrypt --lines` beside what they cannot do without."""

from __future__ import annotations

import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from benchmarks.programs import PROGRAM, Place, place, python, timed
from benchmarks.report import Measurement, Section, ratio_of
from benchmarks.rounds import Contestant, rate, take
from foobar_instance.enclave_client import EnclaveClient
from foobar_shared import hpke
from foobar_shared.addresses import parse_address
from foobar_shared.envelope import load_p256_public_key
from foobar_shared.messages import NONCE_BYTES, GetAttestationRequest

THREADS: Final = 8  # as many as `decrypt` asks KMS with
_MESSAGES: Final = 500
_SINGLES: Final = 20


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure messages a second."""
    count, singles = (2, 1) if small else (_MESSAGES, _SINGLES)
    # Sealing is quick: with few messages only the process's start would be measured.
    sealed = count if small else count * 20
    with place() as here:
        path = f"--attestation-path={here.attestation}"
        plaintexts = [f"attack at dawn {number}" for number in range(sealed)]
        lines = "\n".join(plaintexts) + "\n"
        encrypt = ("encrypt", "-q", path, "--plaintext=-", "--lines")
        messages = python(here.environment, PROGRAM, *encrypt, stdin=lines).splitlines()[:count]
        decrypt = ("decrypt", "-q", path, "--ciphertext=-", "--lines")
        batch = "\n".join(messages) + "\n"
        one_each = statistics.median(
            timed(here.environment, PROGRAM, "decrypt", "-q", path, f"--ciphertext={message}")
            for message in (messages * singles)[:singles]
        )
        measured = take(
            [
                Contestant(
                    "decrypt --lines",
                    lambda: count / timed(here.environment, PROGRAM, *decrypt, stdin=batch),
                ),
                Contestant("KMS's answers alone", lambda: _kms_rate(here, count)),
                Contestant(
                    "encrypt --lines",
                    lambda: sealed / timed(here.environment, PROGRAM, *encrypt, stdin=lines),
                ),
                Contestant("bare hpke.Suite.encrypt", lambda: _seal_rate(here, plaintexts)),
            ],
            rounds=rounds,
            unit="messages/s",
        )
    decrypts, kms, encrypts, bare = measured.values()
    single = Measurement("decrypt, a process each", "messages/s", (1 / one_each,) * rounds)
    return Section(
        "messages",
        f"{count} messages of format 2 decrypted, {sealed} encrypted, each by one whole process; "
        f"KMS is the emulator, asked by {THREADS} threads; {singles} messages by a process each.",
        (single, *measured.values()),
        (
            ratio_of(decrypts, single, bound=30),
            ratio_of(decrypts, kms, bound=0.6),
            ratio_of(encrypts, bare, bound=0.6),
        ),
    )


def _kms_rate(here: Place, count: int) -> float:
    client = here.emulator.kms_client()
    message = hpke.parse(hpke.seal(b"", here.key.public_key, here.key.key_arn))
    assert message is not None  # noqa: S101 - it is of format 2
    enc = message.enc
    with EnclaveClient(parse_address(here.emulator.environment["FOOBAR_ENCLAVE"])) as enclave:
        document = enclave.ask(GetAttestationRequest(secrets.token_bytes(NONCE_BYTES)))

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda _: here.derive(client, enc, document), range(count)))
    return count / (time.perf_counter() - began)


def _seal_rate(here: Place, plaintexts: list[str]) -> float:
    key = load_p256_public_key(here.key.public_key)
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"foobar/message/2\0" + here.key.key_arn.encode()

    def seal_all() -> None:
        for plaintext in plaintexts:
            suite.encrypt(bytes(32) + plaintext.encode(), key, info)

    return rate(seal_all, seconds=0, batch=len(plaintexts))
