"""The quick way along a certification path, for certificates in the one form that AWS issues.

It only ever accepts: what it does not know is `UnfamiliarCertificate`, and the library's path
validation (`chain`) judges the whole path.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from foobar_instance.attestation.certificate import (
    CertificateFields,
    UnfamiliarCertificate,
    cut,
    read,
)
from foobar_instance.attestation.es384 import Es384Key, quick_key

_REMEMBERED: Final = 256  # authorities


@dataclass(frozen=True, slots=True)
class TrustedChain:
    """A chain that leads to the root, and when it does.

    `key` is its last certificate's P-384 key; both times are inclusive and the narrowest of all
    certificates.
    """

    key: Es384Key
    not_before: datetime
    not_after: datetime

    def valid_at(self, moment: datetime) -> bool:
        """Whether every certificate is within its validity period at `moment`."""
        return self.not_before <= moment <= self.not_after


class FamiliarPaths:
    """Leads from one root to leaves, and remembers the authorities between; thread-safe."""

    def __init__(self, root: bytes) -> None:
        """Paths from the certificate `root`, in DER, which is trusted.

        Raises:
            UnfamiliarCertificate: it has another form, so that no path from it is known here.
        """
        signed, _ = cut(root)
        self._root = _Issuer.root(read(signed))
        self._authority = functools.lru_cache(_REMEMBERED)(_Issuer.authority)

    def chain(self, authorities: tuple[bytes, ...], leaf: bytes, name: bytes) -> TrustedChain:
        """The chain from the root over `authorities`, in this order, to `leaf`, all in DER.

        The leaf's common name begins with `name`. When the chain is valid is left to the caller.

        Raises:
            UnfamiliarCertificate: see there.
        """
        issuer = self._root
        for der in authorities:
            issuer = self._authority(issuer, der)
        return issuer.leaf(leaf, name)


@dataclass(frozen=True, slots=True, eq=False)
class _Issuer:
    """An authority that the root leads to, known by identity.

    `names` are the subjects in DER from the root's to its own; `below` is how many authorities may
    follow it (RFC 5280 section 6.1.4, max_path_length), None for any number.
    """

    chain: TrustedChain
    names: tuple[bytes, ...]
    below: int | None

    @classmethod
    def root(cls, fields: CertificateFields) -> _Issuer:
        """The authority that is trusted."""
        if fields.subject != fields.issuer:
            raise UnfamiliarCertificate
        return cls(_chain(fields), (fields.subject,), fields.path_length())

    def authority(self, der: bytes) -> _Issuer:
        """The authority that this one has certified by the certificate `der`."""
        fields = self._certified(der)
        if fields.subject in self.names:
            # The library may find a shorter path, and counts no authority under its own name.
            raise UnfamiliarCertificate
        return _Issuer(
            _chain(fields, self.chain),
            (*self.names, fields.subject),
            _shorter(fields.path_length(), self.below),
        )

    def leaf(self, der: bytes, name: bytes) -> TrustedChain:
        """The chain that ends with the certificate `der`, of a key that may sign documents."""
        fields = self._certified(der)
        fields.check_leaf()
        if not fields.common_name.startswith(name):
            raise UnfamiliarCertificate
        return _chain(fields, self.chain)

    def _certified(self, der: bytes) -> CertificateFields:
        signed, signature = cut(der)
        if not self.chain.key.verify_der(signed, signature):
            raise UnfamiliarCertificate
        fields = read(signed)
        if fields.issuer != self.names[-1]:
            raise UnfamiliarCertificate
        return fields


def _chain(fields: CertificateFields, above: TrustedChain | None = None) -> TrustedChain:
    try:
        key = quick_key(fields.key)
    except Exception as error:  # each library has its own, for a point that is not on the curve
        raise UnfamiliarCertificate from error
    if above is None:
        return TrustedChain(key, fields.not_before, fields.not_after)
    return TrustedChain(
        key,
        max(fields.not_before, above.not_before),
        min(fields.not_after, above.not_after),
    )


def _shorter(length: int | None, above: int | None) -> int | None:
    """How many authorities may follow one with this path length, when `above` may precede it."""
    if above is None:
        return length
    if above == 0:
        raise UnfamiliarCertificate
    return above - 1 if length is None else min(length, above - 1)
