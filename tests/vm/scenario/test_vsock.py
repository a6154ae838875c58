"""What only real vsock shows: ports, CIDs, privileges, streams and machines that go away."""

import base64
import hashlib
import json
from collections.abc import Iterator

import pytest

from foobar_instance.attestation import verify_attestation
from tests.vm.guest import clients, peers, streams
from tests.vm.guest_agent import Completed, Job
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.programs import LabError
from tests.vm.scenario.conftest import WholeJob
from tests.vm.scenario.stage import (
    ALTERED,
    ENCLAVE,
    PROBE,
    Stage,
    cli,
    now,
    python,
    start_cli,
    start_python,
)

RELAY = "vsock:3:1001"
KMS = "kms.us-east-1.amazonaws.com:443"
HOLD = "127.0.0.1:8443"  # a KMS that takes connections and says nothing
GO = "/tmp/go"  # noqa: S108 - in a machine that is ours alone
CLIENTS = 64


def error_of(completed: Completed) -> str:
    """The one line that a program that failed says."""
    assert completed.code == 1, completed
    lines = completed.stderr.decode().splitlines()
    return next(line for line in lines if line.startswith(("error: ", "foobar-enclave: ")))


def hang_create_key(parent: Machine) -> tuple[Job, Job]:
    """A create-key whose enclave waits for KMS, and the peer that is KMS for it."""
    holder = start_python(parent, peers.__name__, "hold", HOLD)
    holder.wait_for_output(peers.LISTENING)
    endpoint = {"AWS_ENDPOINT_URL_KMS": f"https://{HOLD}"}
    creating = start_cli(parent, "create-key", "--attestation-path", GO, environment=endpoint)
    holder.wait_for_output(peers.ACCEPTED)
    return creating, holder


@pytest.mark.usefixtures("job", "enclave")
def test_clients_at_once_are_all_answered(parent: Machine, lab: Lab) -> None:
    completed = python(parent, clients.__name__, str(CLIENTS))
    assert completed.code == 0, completed.stderr.decode()
    answers = json.loads(completed.stdout)
    assert [answer for answer in answers if "error" in answer] == []
    nonces = set()
    for answer in answers:
        nonce = base64.b64decode(answer["nonce"])
        document = base64.b64decode(answer["document"])
        verify_attestation(document, root=lab.authorities.root, at=now(), nonce=nonce)
        nonces.add(nonce)
    assert len(nonces) == CLIENTS


def test_a_user_without_privilege_is_told_to_use_sudo(parent: Machine) -> None:
    relay = python(parent, "proxy", "--listen", RELAY, "--to", KMS, user="nobody")
    assert error_of(relay) == (
        f"error: may not listen at {RELAY}: ports below 1024 need root, so run this with sudo"
    )
    created = cli(parent, "create-key", "--trust-any-enclave", user="nobody", directory="/tmp")  # noqa: S108
    assert error_of(created) == (
        f"error: the relay may not listen at {RELAY}: ports below 1024 need root, so run this "
        "command with sudo"
    )


@pytest.fixture
def relay(parent: Machine) -> Iterator[Job]:
    """The relay as a program of its own, for the enclave's CID."""
    job = start_python(parent, "proxy", "--listen", RELAY, "--to", KMS)
    job.wait_for_output(f"relaying {RELAY} to {KMS}, for CID 16 only")
    yield job
    job.kill()
    job.finish()


@pytest.mark.usefixtures("relay")
def test_the_relays_port_is_in_use(parent: Machine) -> None:
    second = python(parent, "proxy", "--listen", RELAY, "--to", KMS)
    assert error_of(second) == (
        f"error: can't listen at {RELAY}: it is in use; stop what listens there, or choose another"
    )
    created = cli(parent, "create-key", "--trust-any-enclave")
    assert error_of(created) == (
        f"error: the relay can't listen at {RELAY}: it is in use; is another create-key running?"
    )


def test_a_stranger_is_refused_and_noted(relay: Job, probe: Machine) -> None:
    dialled = python(probe, peers.__name__, "dial", RELAY)
    assert dialled.stdout.decode().strip() == peers.CLOSED
    relay.wait_for_output("refused a connection from (17, ")


@pytest.mark.usefixtures("enclave")
def test_a_cid_is_one_machines(stage: Stage) -> None:
    with pytest.raises(LabError):
        stage.backends.vsock(16)


def test_the_enclave_is_gone_in_the_middle_of_a_request(
    stage: Stage, parent: Machine, job: WholeJob
) -> None:
    assert job.created.code == 0
    creating, holder = hang_create_key(parent)
    stage.kill(ENCLAVE)
    stage.begin(ALTERED)
    completed = creating.finish()
    holder.kill()
    said = error_of(completed)
    assert said.startswith(
        ("error: the connection to the enclave was lost", "error: the enclave closed")
    )
    assert "a key may have been made all the same" in completed.stderr.decode()


def test_a_stream_is_held_up_by_its_reader_and_arrives_whole(
    parent: Machine, probe: Machine
) -> None:
    target = "127.0.0.1:7000"
    server = start_python(parent, streams.__name__, "serve", target, "--go", GO)
    relay = start_python(parent, "proxy", "--listen", RELAY, "--to", target, "--allow-cid", "17")
    server.wait_for_output(streams.READY)
    relay.wait_for_output("relaying")
    client = start_python(probe, streams.__name__, "connect", RELAY, "--go", GO)
    client.wait_for_output(streams.HELD_UP)
    parent.agent.write_file(GO, b"")
    server.wait_for_output(streams.HELD_UP)
    probe.agent.write_file(GO, b"")
    received = [client.finish(), server.finish()]
    relay.kill()
    for completed, sender in zip(received, ("serve", "connect"), strict=True):
        digest = hashlib.sha256(streams.content(sender)).hexdigest()
        assert f"received {streams.SIZE} {digest}\n" in completed.stdout.decode()


def test_the_enclaves_port_is_in_use(stage: Stage) -> None:
    probe = stage.machine(PROBE)
    holder = start_python(probe, peers.__name__, "hold", "vsock:17:1000")
    holder.wait_for_output(peers.LISTENING)
    # An enclave takes connections to any CID of its own, and so this one too.
    enclave = python(probe, "foobar_enclave")
    holder.kill()
    assert error_of(enclave) == (
        "foobar-enclave: cannot serve on vsock port 1000: Address already in use"
    )
