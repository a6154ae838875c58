"""No secret in any log or message, over the whole job at debug level."""

import json
from pathlib import Path

import pytest

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from tests.e2e.hostile import Exchange, enclave_in_the_middle

PLAINTEXT = "canary-in-the-enclave"


@pytest.mark.threat("10")
def test_no_secret_is_written_anywhere(
    cli: InstanceCli, emulator: Emulator, nitro_console: Path
) -> None:
    requests: list[bytes] = []

    def listen_in(line: bytes, exchange: Exchange) -> bytes:
        requests.append(line)
        return exchange(line)

    with enclave_in_the_middle(emulator.enclave.address, listen_in) as address:
        results = [cli("create-key", "-v", FOOBAR_ENCLAVE=address)]
        results.append(cli("encrypt", "-v", "--plaintext", "-", stdin=PLAINTEXT))
        message = results[-1].stdout
        results.append(
            cli("decrypt", "-v", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=address)
        )
        broken = requests[-1].replace(b'"c":"', b'"c":"AAAA')
        with enclave_in_the_middle(emulator.enclave.address, lambda *_: broken) as echo:
            failed = cli("decrypt", "-v", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=echo)

    assert [result.returncode for result in results] == [0, 0, 0]
    assert failed.returncode != 0
    credentials = json.loads(requests[0])["createKey"]["credentials"]
    assert set(credentials) == {"AccessKeyId", "SecretAccessKey", "Token"}
    secrets = [*credentials.values(), PLAINTEXT, PLAINTEXT.encode().hex()]
    secrets.append(json.loads(requests[-1])["compute"]["messages"][0]["sharedSecret"])
    written = nitro_console.read_text()
    written += "".join(result.stderr.decode() for result in (*results, failed))
    written += "".join(result.stdout.decode() for result in results)
    assert len(written) > 1000  # something was logged at all
    for secret in secrets:
        assert secret not in written
