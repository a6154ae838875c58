"""The parent instance's command line, and the library that verifies attestation documents."""

from typing import Final

# Also in pyproject.toml: reading an installed distribution's metadata takes longer than click.
VERSION: Final = "0.1.0"
