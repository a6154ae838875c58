"""Many messages: `encrypt --lines` and `decrypt --lines` beside what they cannot do without."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from benchmarks.programs import PROGRAM, Place, place, python, timed
from benchmarks.report import Section, rate, ratio_of, take
from foobar_shared.envelope import load_p256_public_key

_THREADS: Final = 8  # as many as `decrypt` asks KMS with
_MESSAGES: Final = 500
_SINGLES: Final = 3


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure messages a second."""
    count, singles = (2, 1) if small else (_MESSAGES, _SINGLES)
    # Sealing is quick: with few messages only the process's start would be measured.
    plaintexts = [f"attack at dawn {number}" for number in range(count if small else count * 20)]
    lines = "\n".join(plaintexts)
    with place() as here:
        path = f"--attestation-path={here.attestation}"
        encrypt = ("encrypt", "-q", path, "--plaintext=-", "--lines")
        decrypt = ("decrypt", "-q", path, "--ciphertext=-")
        messages = python(here.environment, PROGRAM, *encrypt, stdin=lines).splitlines()[:count]

        def decrypting(stdin: str, *options: str) -> float:
            return timed(here.environment, PROGRAM, *decrypt, *options, stdin=stdin)

        measured = take(
            {
                "decrypt, a process each": lambda: (
                    singles / sum(decrypting(message) for message in messages[:singles])
                ),
                "decrypt --lines": lambda: count / decrypting("\n".join(messages), "--lines"),
                "KMS's answers alone": lambda: _kms_rate(here, count),
                "encrypt --lines": lambda: (
                    len(plaintexts) / timed(here.environment, PROGRAM, *encrypt, stdin=lines)
                ),
                "bare hpke.Suite.encrypt": lambda: _seal_rate(here, plaintexts),
            },
            rounds=rounds,
            unit="messages/s",
        )
    single, decrypts, kms, encrypts, bare = measured.values()
    return Section(
        "messages",
        f"{count} messages of format 2 decrypted and {len(plaintexts):,} encrypted, each by one "
        f"whole process; KMS is the emulator, asked by {_THREADS} threads. {singles} of them "
        "decrypted by a process each.",
        tuple(measured.values()),
        (
            ratio_of(decrypts, single, 30),
            ratio_of(decrypts, kms, 0.6),
            ratio_of(encrypts, bare, 0.6),
        ),
    )


def _kms_rate(here: Place, count: int) -> float:
    _, shared_secret = here.message()
    began = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda _: shared_secret(), range(count)))
    return count / (time.perf_counter() - began)


def _seal_rate(here: Place, plaintexts: list[str]) -> float:
    key = load_p256_public_key(here.key.public_key)
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"foobar/message/2\0" + here.key.key_arn.encode()

    def seal_all() -> None:
        for plaintext in plaintexts:
            suite.encrypt(bytes(32) + plaintext.encode(), key, info)

    return rate(seal_all, seconds=0, batch=len(plaintexts))
