"""What the enclave and the parent instance must agree on: addresses, messages, envelope, policy."""
