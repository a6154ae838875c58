"""What the enclave and the parent instance must agree on: addresses, messages, envelope, policy."""

from typing import Final

VERSION: Final = "0.1.0"
"""Of all programs, as in pyproject.toml. The enclave's image holds no metadata to read it from."""
