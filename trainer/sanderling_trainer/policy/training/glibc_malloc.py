"""Makes glibc keep freed memory in the process instead of returning it to the kernel.

By default glibc maps each large block anew and unmaps it when it is freed, so that every training
step pays again for the page faults of the same gigabyte. Blocks that are kept are reused; the price
is that the process holds its peak memory until it ends.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3

MAX_THRESHOLD = 2**31 - 1
PAD = 2**26


def keep_memory() -> bool:
    """Make glibc keep freed blocks of up to 2 GiB; return whether it accepted.

    Safe to call more than once; on other systems it does nothing and returns False.
    """
    if not sys.platform.startswith("linux"):
        return False
    # musl, for one, has no mallopt.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False

    settings = (
        (M_MMAP_THRESHOLD, MAX_THRESHOLD),
        (M_TRIM_THRESHOLD, MAX_THRESHOLD),
        (M_TOP_PAD, PAD),
    )
    return sum(mallopt(name, value) for name, value in settings) == len(settings)
