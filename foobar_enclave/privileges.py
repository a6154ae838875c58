"""Gives up root's rights once what takes them is done: the port, the device, the entropy."""

from __future__ import annotations

import logging
import os
from typing import Final

# linux/highuid.h DEFAULT_OVERFLOWUID: "nobody", whether or not the image has names for users.
NOBODY: Final = 65534

_logger = logging.getLogger(__name__)


def give_up_root() -> None:
    """Go on as user and group 65534 without further groups; nothing where this isn't root.

    There is no way back: real, effective and saved ids are all set, and the kernel drops every
    capability with the last of root's ids (capabilities(7)).

    Raises:
        OSError: the kernel does not let go, and the process must not go on.
    """
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _logger.info("event=privileges uid=%d gid=%d", os.geteuid(), os.getegid())
