"""A float32 query q -> its integers z of 24 bits, its int8 codes y, and the numbers for bounds."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.layout import (
    GROUP_DIMS,
    LANES,
    LIMIT_COUNT,
    LIMIT_NORM,
    LIMIT_OFFSET,
    LIMIT_REST,
    LIMIT_ROUNDING,
    LIMIT_STEP,
    MAX_CODE,
    MAX_VALUE,
    MIN_VALUE,
)
from sanderling.kernels.simd import called, inlined, reordered

# 1.5 x 2^52: adding and subtracting it rounds a double to an integer, halves to even
_ROUNDING_SHIFT = 6755399441055744.0


@inlined
def _rounded(x: Any) -> Any:
    return (x + _ROUNDING_SHIFT) - _ROUNDING_SHIFT


@reordered
def _write_limits(
    query: Any,
    d: Any,
    inverse: Any,
    step: Any,
    coarse_inverse: Any,
    coarse_step: Any,
    zero: Any,
    limits: Any,
) -> None:
    """Write the numbers that bound the scores (`layout`, LIMIT_*); inlined, so plain numbers.

    The factors 1.0001 and the margin of 5e-7 outweigh the rounding of float32, so that bounds stay
    bounds.
    """
    norm = 0.0
    rest = 0.0
    magnitude = 0.0
    coarse_sum = 0.0
    for j in range(d):
        value = _rounded(np.float64(query[j]) * inverse) * step
        near = _rounded(value * coarse_inverse)
        norm += value * value
        rest += (value - near * coarse_step) * (value - near * coarse_step)
        magnitude += abs(near)
        coarse_sum += near

    limits[LIMIT_NORM] = np.float32(sqrt(norm) * 1.0001)
    limits[LIMIT_REST] = np.float32(sqrt(rest) * 1.0001)
    limits[LIMIT_ROUNDING] = np.float32(coarse_step * magnitude * 2.0 * zero * 5e-7)
    limits[LIMIT_STEP] = np.float32(coarse_step)
    limits[LIMIT_OFFSET] = np.float32(-zero * coarse_sum * coarse_step)


@called
def quantize_query(query: Any, d: Any, zero: Any, codes: Any, coarse: Any, limits: Any) -> Any:
    """Round the query to 24 bits, in two parts, and to int8; return its step.

    The step is 0 where the query has no direction. `zero` is the code that stands for 0 in the
    planes.
    """
    padded = (d + LANES - 1) // LANES * LANES
    peak = np.float32(0)
    for j in range(d):
        value = abs(query[j])
        # A comparison with NaN is false, so NaN is taken explicitly: it must reach the check below.
        peak = value if value > peak or value != value else peak

    has_direction = peak >= MIN_VALUE and peak <= MAX_VALUE
    inverse = 0.0
    step = 0.0
    coarse_step = 0.0
    coarse_inverse = 0.0
    if has_direction:
        inverse = MAX_CODE / np.float64(peak)
        step = np.float64(peak) / MAX_CODE
        coarse_step = np.float64(np.float32(np.float64(peak) / 127.0))
        coarse_inverse = 1.0 / coarse_step if coarse_step > 0 else 0.0

    for j in range(d):
        code = _rounded(np.float64(query[j]) * inverse) if has_direction else 0.0
        high = _rounded(code * (1.0 / 4096.0))
        codes[j] = np.int16(high)
        codes[padded + j] = np.int16(code - high * 4096.0)
        coarse[j] = np.int8(_rounded(code * step * coarse_inverse))
    for j in range(d, (d + GROUP_DIMS - 1) // GROUP_DIMS * GROUP_DIMS):
        coarse[j] = np.int8(0)

    for j in range(LIMIT_COUNT):
        limits[j] = np.float32(0)
    if has_direction:
        _write_limits(query, d, inverse, step, coarse_inverse, coarse_step, zero, limits)
    return step
