"""A corpus of hostile attestation documents, for verifiers in any language."""
