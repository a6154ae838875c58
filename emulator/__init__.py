"""Nitro, KMS and instance metadata for a machine without AWS. Never part of an enclave image."""
