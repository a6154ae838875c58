"""The relay between AF_VSOCK and TCP, which looks at nothing that passes through it."""
