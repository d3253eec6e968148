"""A query in float32 -> its codes of 24 bits, its int8, and what bounds need of it. Refuses to know rows."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.layout import GROUP, LANES, LARGEST, LARGEST_VALUE, SMALLEST_VALUE
from sanderling.kernels.simd import called, inlined, reordered

_MAGIC = 6755399441055744.0  # 1.5 x 2^52: adding and taking it away rounds a double to an integer, halves to even


@inlined
def _rounded(x: Any) -> Any:
    return (x + _MAGIC) - _MAGIC


@reordered
def _limits(
    query: Any, d: Any, inverse: Any, step: Any, small: Any, large: Any, zero: Any, limits: Any
) -> None:
    """Write the query's norm, the rest's, the margin for the rounding of floats, the int8 step, and the offset."""
    norm, rest, magnitude, sum_ = 0.0, 0.0, 0.0, 0.0
    for j in range(d):
        value = _rounded(np.float64(query[j]) * inverse) * step
        near = _rounded(value * small)
        norm += value * value
        rest += (value - near * large) * (value - near * large)
        magnitude += abs(near)
        sum_ += near
    limits[0], limits[1] = np.float32(sqrt(norm) * 1.0001), np.float32(sqrt(rest) * 1.0001)
    limits[2], limits[3] = np.float32(large * magnitude * 2.0 * zero * 5e-7), np.float32(large)
    limits[4] = np.float32(-zero * sum_ * large)


@called
def quantize(query: Any, d: Any, zero: Any, codes: Any, coarse: Any, limits: Any) -> Any:
    """Round the query to 24 bits, in two parts, and to int8; return its step, 0 where it has no direction.

    `zero` is the code that stands for 0 in the planes.
    """
    whole = (d + LANES - 1) // LANES * LANES
    peak = np.float32(0)
    for j in range(d):
        value = abs(query[j])
        peak = value if value > peak or value != value else peak
    has = peak >= SMALLEST_VALUE and peak <= LARGEST_VALUE
    inverse, step, large, small = 0.0, 0.0, 0.0, 0.0
    if has:
        inverse, step = LARGEST / np.float64(peak), np.float64(peak) / LARGEST
        large = np.float64(np.float32(np.float64(peak) / 127.0))
        small = 1.0 / large if large > 0 else 0.0
    for j in range(d):
        code = _rounded(np.float64(query[j]) * inverse) if has else 0.0
        high = _rounded(code * (1.0 / 4096.0))
        codes[j], codes[whole + j] = np.int16(high), np.int16(code - high * 4096.0)
        coarse[j] = np.int8(_rounded(code * step * small))
    for j in range(d, (d + GROUP - 1) // GROUP * GROUP):
        coarse[j] = np.int8(0)
    for j in range(5):
        limits[j] = np.float32(0)
    if has:
        _limits(query, d, inverse, step, small, large, zero, limits)
    return step
