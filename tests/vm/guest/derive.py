"""Asks KMS for a message's shared secret as a parent that checks nothing.

The attestation document of whatever enclave answers goes to KMS. Prints KMS's answer.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from foobar_instance.attestation import parse_attestation
from foobar_instance.decrypt import ephemeral_key_of
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import KmsRequestError
from foobar_instance.kms_client import KmsService
from foobar_instance.trust import key_claims
from foobar_shared.addresses import ENCLAVE
from foobar_shared.hpke import parse_message
from foobar_shared.messages import GetAttestationRequest


def main(arguments: Sequence[str] | None = None) -> None:
    """Print `derived N bytes`, or KMS's refusal."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.derive", description=__doc__)
    parser.add_argument("key", type=Path, help="the key's attestation")
    parser.add_argument("message", type=Path, help="the ciphertext message")
    options = parser.parse_args(arguments)
    key = key_claims(parse_attestation(options.key.read_bytes()))
    message = parse_message(options.message.read_text().strip())
    with EnclaveClient(ENCLAVE) as enclave:
        document = enclave.ask(GetAttestationRequest())
    try:
        enveloped = KmsService(key.region).derive_shared_secret(
            key_arn=key.key_arn, ephemeral_key=ephemeral_key_of(message), attestation=document
        )
    except KmsRequestError as error:
        print(error)  # noqa: T201
    else:
        print(f"derived {len(enveloped)} bytes for the enclave")  # noqa: T201


if __name__ == "__main__":
    main()
