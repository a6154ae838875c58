"""AWS KMS for a machine without AWS: moto's KMS behind what moto lacks.

Attestation documents, key policies, signatures of requests, ECDH keys, and KMS's own errors are
checked and answered here; keys and their states are moto's.
"""
