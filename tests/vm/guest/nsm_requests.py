"""Sends right and wrong requests to the machine's NSM, and prints the answers as JSON.

Bytes are printed in hexadecimal, errors by their code. The scenario checks them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from foobar_enclave.errors import NsmError
from foobar_enclave.nsm import REQUEST_MAX, IoctlTransport, NsmDevice

PCRS: Final = 32
FREE_PCR: Final = 17  # not locked at the start, as 16 to 31 are
FIELD_MAX: Final = 1024
NONCE: Final = bytes(range(32))
USER_DATA: Final = b"the lab's user data"
PUBLIC_KEY: Final = bytes(reversed(range(256)))
LONGEST: Final = tuple(bytes([value]) * FIELD_MAX for value in (1, 2, 3))

DEVICE: Final = "/dev/nsm"
HWRNG: Final = Path("/sys/class/misc/hw_random/rng_available")

# The CBOR of aws-nitro-enclaves-nsm-api's requests, byte by byte.
RAW: Final = {
    "describe": bytes.fromhex("6b 44657363726962654e534d"),
    "random": bytes.fromhex("69 47657452616e646f6d"),
    "describe PCR 0": bytes.fromhex("a1 6b 446573637269626550 4352 a1 65 696e646578 00"),
    "empty": b"",
    "no CBOR": b"\xff\xff",
    "cut short": bytes.fromhex("a1 6b 4465736372"),
    "two items": bytes.fromhex("69 47657452616e646f6d 00"),
    "longest": b"\x00" * REQUEST_MAX,
    "too long": b"\x00" * (REQUEST_MAX + 1),
}


def main() -> None:
    """Print all answers as one JSON object."""
    device = NsmDevice()
    described = device.describe()
    answers = {
        "mode": f"{Path(DEVICE).stat().st_mode & 0o777:o}",
        "hwrng": HWRNG.read_text().split(),
        "describe": {name: getattr(described, name) for name in described.__slots__},
        "pcrs": [_pcr(device, index) for index in range(PCRS)],
        "random": [device.random().hex() for _ in range(2)],
        "documents": _documents(device),
        "refusals": _refusals(device),
        "raw": _raw(IoctlTransport(DEVICE)),
        "lock": _lock(device),
        "pcr": _pcr(device, FREE_PCR),
    }
    print(json.dumps(answers))  # noqa: T201


def _documents(device: NsmDevice) -> dict[str, str]:
    first, second, third = LONGEST
    documents = {
        "empty": device.attest(),
        "full": device.attest(user_data=USER_DATA, nonce=NONCE, public_key=PUBLIC_KEY),
        "longest": device.attest(user_data=first, nonce=second, public_key=third),
    }
    return {name: document.hex() for name, document in documents.items()}


def _refusals(device: NsmDevice) -> dict[str, str]:
    long = bytes(FIELD_MAX + 1)
    locked = {"index": 0, "data": b"x"}
    asked: dict[str, Callable[[], object]] = {
        "PCR 32": lambda: device.describe_pcr(PCRS),
        "PCR 65535": lambda: device.describe_pcr(0xFFFF),
        "PCR 65536": lambda: device.describe_pcr(0x10000),
        "PCR -1": lambda: device.describe_pcr(-1),
        "long user data": lambda: device.attest(user_data=long),
        "long nonce": lambda: device.attest(nonce=long),
        "long public key": lambda: device.attest(public_key=long),
        "longer than a request": lambda: device.attest(user_data=bytes(REQUEST_MAX)),
        "extend a locked PCR": lambda: device._ask("ExtendPCR", locked),
        "lock a locked PCR": lambda: device._ask("LockPCR", {"index": 0}),
        "lock 33 PCRs": lambda: device._ask("LockPCRs", {"range": PCRS + 1}),
        "no such request": lambda: device._ask("OpenSesame"),
        "a PCR without number": lambda: device._ask("DescribePCR", {}),
        "another device": lambda: NsmDevice("/dev/none"),
    }
    return {name: _outcome(ask) for name, ask in asked.items()}


def _raw(transport: IoctlTransport) -> dict[str, str]:
    """Return the driver's answers, without the checks of `NsmDevice`."""
    answers = {}
    for name, request in RAW.items():
        try:
            answers[name] = transport.exchange(request).hex()
        except OSError as error:
            answers[name] = f"errno {error.errno}"
    return answers


def _lock(device: NsmDevice) -> list[str]:
    """Extend the free PCR, lock it, and try to extend it again."""
    extend = {"index": FREE_PCR, "data": USER_DATA}
    steps: list[Callable[[], object]] = [
        lambda: device._ask("ExtendPCR", extend).take("data", bytes).hex(),
        # The answer to LockPCR is its bare name, without fields.
        lambda: device._transport.exchange(_lock_request()).hex(),
        lambda: device._ask("ExtendPCR", extend),
    ]
    return [_outcome(step) for step in steps]


def _lock_request() -> bytes:
    return b"\xa1\x67LockPCR\xa1\x65index" + bytes([FREE_PCR])


def _pcr(device: NsmDevice, index: int) -> dict[str, object]:
    pcr = device.describe_pcr(index)
    return {"lock": pcr.lock, "data": pcr.data.hex()}


def _outcome(ask: Callable[[], object]) -> str:
    try:
        return str(ask())
    except NsmError as error:
        return error.code


if __name__ == "__main__":
    main()
