"""Feeds the kernel's entropy pool from the Nitro Secure Module, before any key is made.

An enclave boots with next to no entropy of its own, and its parent could know what little there is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Callable
from typing import Final

from foobar_enclave.errors import EntropyError
from foobar_enclave.nsm import NsmDevice

RNDADDENTROPY: Final = 0x40085203  # linux/random.h _IOW('R', 0x03, int [2])
RNDRESEEDCRNG: Final = 0x5207  # linux/random.h _IO('R', 0x07)
SEED_BYTES: Final = 256  # one answer of the module; eight times what the kernel's generator needs

# ENOTTY and EINVAL: kernels before 4.17 lack this ioctl. ENODATA: the generator is not ready, so
# it gives nothing before it is seeded.
_NO_RESEED: Final = (errno.ENOTTY, errno.EINVAL, errno.ENODATA)

_logger = logging.getLogger(__name__)


def feed_kernel_pool(
    nsm: NsmDevice,
    *,
    device: str = "/dev/random",
    ioctl: Callable[[int, int, bytes], object] = fcntl.ioctl,
) -> None:
    """Mix 256 bytes of the module's randomness into the kernel's pool.

    They are credited as entropy where this process may do so (CAP_SYS_ADMIN), and mixed in without
    credit by a plain write elsewhere. After a credit the generator is reseeded at once: one that is
    ready would go on for up to five minutes without the seed.

    Raises:
        NsmError: the module gives no randomness.
        EntropyError: it gives too little, the pool takes none, or the reseeding fails.
    """
    seed = nsm.random()
    if len(seed) < SEED_BYTES:
        raise EntropyError(f"the Nitro Secure Module gave {len(seed)} random bytes of {SEED_BYTES}")
    credited = True
    try:
        with os.fdopen(os.open(device, os.O_WRONLY | os.O_CLOEXEC), "wb") as pool:
            try:  # struct rand_pool_info: bits, bytes, the bytes themselves
                info = struct.pack("=ii", len(seed) * 8, len(seed)) + seed
                ioctl(pool.fileno(), RNDADDENTROPY, info)
            except OSError:
                credited = False
                pool.write(seed)
            if credited:
                _reseed(pool.fileno(), ioctl)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise EntropyError(f"the kernel's entropy pool takes no seed: {reason}") from None
    _logger.info("event=entropy bytes=%d credited=%s", len(seed), credited)


def _reseed(descriptor: int, ioctl: Callable[[int, int, bytes], object]) -> None:
    try:
        ioctl(descriptor, RNDRESEEDCRNG, b"")
    except OSError as error:
        if error.errno not in _NO_RESEED:
            raise
