"""The parent instance's command line, and the library that verifies attestation documents."""
