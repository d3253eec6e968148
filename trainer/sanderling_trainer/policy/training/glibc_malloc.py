"""Large blocks of memory stay with the process instead of going back to the kernel after every step.

glibc maps each large block anew and unmaps it when it is freed, so that every step of training pays again for the page
faults of the same gigabyte. Kept blocks are reused; the price is that the process holds its peak until it ends. Refuses
to know what the memory is for.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MOST = 2**31 - 1
PAD = 2**26


def keep_memory() -> bool:
    """Tell glibc to keep freed blocks up to 2 GiB; return whether it was told. Harmless twice, and elsewhere."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_THRESHOLD, MOST), (M_TRIM_THRESHOLD, MOST), (M_TOP_PAD, PAD))
    return sum(mallopt(name, value) for name, value in settings) == len(settings)
