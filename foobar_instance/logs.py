"""Debug logs on standard error: what is asked and answered, by name and size alone."""

from __future__ import annotations

import sys
from typing import Final

# The AWS SDK's own logs would show requests with credentials.
_OURS: Final = ("foobar_instance", "proxy")


def log_to_stderr(*, verbose: bool) -> None:
    """Send this project's own logs to standard error: all of them, or errors alone.

    Loads `logging` only where it is wanted, or is loaded already: encrypting needs none. A command
    loads what logs before it comes here.
    """
    if not verbose and "logging" not in sys.modules:
        return
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR)


def debug(name: str, text: str, *arguments: object) -> None:
    """Log for -v, which has loaded `logging`; where nothing has, nobody listens.

    Args:
        name: the logger's, which is its module's.
        text: with % places for the arguments.
        arguments: names and sizes alone.
    """
    if "logging" in sys.modules:
        import logging

        logging.getLogger(name).debug(text, *arguments)
