"""Debug logs on standard error: what is asked and answered, by name and size alone."""

from __future__ import annotations

import logging
from typing import Final

# The AWS SDK's own logs would show requests with credentials.
_OURS: Final = ("foobar_instance", "proxy")


def log_to_stderr(*, verbose: bool) -> None:
    """Send this project's own logs to standard error: all of them, or errors alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR)
