"""The fixtures as a service of one's own would use them."""

import json
import os
from pathlib import Path

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from foobar_instance.attestation import verify_attestation
from foobar_shared.computation import compute

pytest_plugins = ["emulator.pytest_plugin"]


def test_a_sealed_message_is_decrypted(instance_cli_with_key: InstanceCli) -> None:
    message = instance_cli_with_key.seal("attack at dawn")
    assert instance_cli_with_key.decrypt(message) == str(compute([b"attack at dawn"]))


def test_the_attestation_is_a_keys(nitro_emulator: Emulator, key_attestation: bytes) -> None:
    attestation = verify_attestation(key_attestation, root=nitro_emulator.pki.root)
    assert json.loads(attestation.user_data or b"")["type"] == "foobar/create-key/1"


def test_a_command_fails_in_its_own_directory(instance_cli: InstanceCli) -> None:
    result = instance_cli("encrypt", "--plaintext", "x")
    assert (result.returncode, result.stdout) == (1, b"")


def test_this_process_is_pointed_at_it(
    nitro_environment: dict[str, str], nitro_emulator: Emulator, nitro_console: Path
) -> None:
    assert dict(os.environ).items() >= nitro_emulator.environment.items()
    assert nitro_environment["FOOBAR_ENCLAVE"] == os.environ["FOOBAR_ENCLAVE"]
    assert "AWS_PROFILE" not in os.environ
    assert "event=start" in nitro_console.read_text()
