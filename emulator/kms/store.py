"""moto's KMS: where keys are made, kept, described, disabled and scheduled for deletion.

The one place that touches moto, which publishes no types.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from moto.kms.models import kms_backends
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import Client

from emulator.kms.errors import KmsError
from foobar_shared.encoding import parse_json_object, to_json


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the checks need to know of a key. `state` is KMS's KeyState."""

    key_id: str
    arn: str
    policy: str
    spec: str
    usage: str
    state: str
    origin: str


class KeyStore:
    """The keys of one account in one region; thread-safe."""

    def __init__(self, *, region: str, account_id: str) -> None:
        self._backend: Final[Any] = kms_backends[account_id][region]
        self._client = Client(create_backend_app("kms"))
        self._headers = {
            "Content-Type": "application/x-amz-json-1.1",
            # moto finds account and region in these; who called was decided before.
            "X-Moto-Account-Id": account_id,
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/"
            f"{region}/kms/aws4_request, SignedHeaders=host, Signature=0",
        }
        self._own_keys: set[str] = set()
        self._lock = threading.Lock()

    def create(self, members: Mapping[str, object]) -> dict[str, object]:
        """The KeyMetadata of a new key, as moto gives it."""
        metadata = self.call("CreateKey", members)["KeyMetadata"]
        if not isinstance(metadata, dict):
            raise TypeError("moto's CreateKey answered no KeyMetadata")
        with self._lock:
            self._own_keys.add(str(metadata["KeyId"]))
        return metadata

    def call(self, operation: str, members: Mapping[str, object]) -> dict[str, object]:
        """What moto answers to an operation; empty where it answers null.

        Raises:
            KmsError: moto's refusal.
        """
        headers = self._headers | {"X-Amz-Target": f"TrentService.{operation}"}
        with self._lock:
            response = self._client.post("/", data=to_json(members), headers=headers)
        if response.data == b"null":
            return {}
        answer = parse_json_object(response.data)
        if response.status_code != 200:
            code, message = str(answer.get("__type")), str(answer.get("message", ""))
            raise KmsError(code, message, status=response.status_code)
        return answer

    def find(self, key_id: str) -> KeyRecord | None:
        """The key of that id, which is not an ARN."""
        with self._lock:
            key = self._backend.keys.get(key_id) if key_id in self._own_keys else None
        if key is None:
            return None
        return KeyRecord(
            key_id=key.id,
            arn=key.arn,
            policy=key.policy,
            spec=key.key_spec,
            usage=key.key_usage,
            state=key.key_state,
            origin=key.origin,
        )

    def elliptic_curve_key(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """The private key of a key whose spec is ECC_..."""
        key = self._backend.keys[key_id].private_key.private_key
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("moto keeps no elliptic curve key for this key")
        return key

    def forget(self) -> None:
        """Drop the keys made here from moto's memory, which the whole process shares."""
        with self._lock:
            for key_id in self._own_keys:
                self._backend.keys.pop(key_id, None)
            self._own_keys.clear()
