"""Nitro, KMS and instance metadata for a machine without AWS. Never part of an enclave image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulator.up import Emulator

__all__ = ["Emulator"]


def __getattr__(name: str) -> object:
    # An emulated enclave imports this package too, and has no use for boto3.
    if name == "Emulator":
        from emulator.up import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
