"""The parent is gone in the middle of a request: the enclave serves the next one."""

import base64
import json

from foobar_instance.attestation import verify_attestation
from tests.vm.guest import clients
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.scenario.stage import ENCLAVE, PARENT, Stage, now, python
from tests.vm.scenario.test_vsock import hang_create_key


def test_the_enclave_goes_on_serving(stage: Stage, enclave: Machine, lab: Lab) -> None:
    hang_create_key(stage.machine(PARENT))
    stage.kill(PARENT)
    again = stage.machine(PARENT)
    completed = python(again, clients.__name__, "1")
    (answer,) = json.loads(completed.stdout)
    attestation = verify_attestation(
        base64.b64decode(answer["document"]), root=lab.authorities.root, at=now()
    )
    assert attestation.pcrs[0] == lab.images[ENCLAVE].pcrs[0]
    assert stage.machine(ENCLAVE) is enclave
    assert enclave.console.read_text(errors="replace").count("event=start ") == 1
