"""The uniforms of a decision, compiled (`sanderling.exploration.philox` in Python)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.simd import exported, float64s

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)


@exported
def fill_uniforms(
    first: Any, last: Any, blocks: Any, out_address: Any, unused: Any, unused2: Any
) -> Any:
    """Write two doubles in [0, 1) for each block; `first` and `last` are halves of the id.

    Returns the number of blocks.
    """
    out = float64s(out_address)
    for block in range(blocks):
        c0, c1 = np.uint64(block), np.uint64(0)
        c2, c3 = np.uint64(first) >> _HALF, np.uint64(first) & _LOW
        k0, k1 = np.uint64(last) >> _HALF, np.uint64(last) & _LOW
        for _ in range(10):
            p0, p1 = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = p1 >> _HALF ^ c1 ^ k0, p1 & _LOW, p0 >> _HALF ^ c3 ^ k1, p0 & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW

        for i, high, low in ((0, c0, c1), (1, c2, c3)):
            bits = (high >> np.uint64(5)) * np.uint64(67108864) + (low >> np.uint64(6))
            out[2 * block + i] = np.float64(np.int64(bits)) / 9007199254740992.0
    return blocks
