"""The user model's state and vector, in one order of arithmetic (docs/MATH.md, "Equal bits").

Sums of products are in float64 and in the order of the inputs; vectorised over the outputs, so that
this order costs nothing. Vectors are rounded to float32 once. `sanderling.ranking.user_model` says
what is computed; its numpy form has the same bits.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.layout import (
    EPSILON,
    LANES,
    MODEL_B1,
    MODEL_B2,
    MODEL_CHANNELS,
    MODEL_CONTEXT,
    MODEL_DECAY,
    MODEL_GAIN,
    MODEL_HIDDEN,
    MODEL_INPUT,
    MODEL_ITEMS,
    MODEL_KINDS,
    MODEL_TEXT,
    MODEL_W1,
    MODEL_W2,
    MODEL_WIDTH,
)
from sanderling.kernels.simd import (
    add_products,
    called,
    double_bits,
    double_of,
    exported,
    float32s,
    float64s,
    inlined,
    int64s,
    load_doubles,
    store_doubles,
)

# exp(x) = 2^k exp(r) with |r| <= ln(2) / 2, and exp(r) by its series up to r^10 / 10!
_LIMIT = 708.0  # of |x|, so that 2^k is a normal number
_PER_LN2 = 1.4426950408889634
_LN2_HIGH = 0.6931471803691238  # 32 bits, so that k times it is exact
_LN2_LOW = 1.9082149292705877e-10
_ROUNDING_SHIFT = 6755399441055744.0  # 1.5 x 2^52
_EXPONENT_BIAS = np.uint64(1023)
_MANTISSA_BITS = np.uint64(52)


@inlined
def _exp(x: Any) -> Any:
    """Return exp(x) within 1e-11 of it, for x limited to -708 … 708."""
    limited = min(max(x, -_LIMIT), _LIMIT)
    # The lowest bits of the sum are the integer k: no conversion, which NaN would trap.
    shifted = limited * _PER_LN2 + _ROUNDING_SHIFT
    k = shifted - _ROUNDING_SHIFT
    r = (limited - k * _LN2_HIGH) - k * _LN2_LOW
    series = 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    series = series * r + 1.0
    series = series * r + 1.0
    return series * double_of((double_bits(shifted) + _EXPONENT_BIAS) << _MANTISSA_BITS)


@called
def _multiply(weights: Any, factors_address: Any, inputs: Any, outputs: Any, sums: Any) -> None:
    """Add the products of float32 [inputs, outputs] and [inputs] to the float64 sums [outputs].

    All but the number of inputs are addresses, or filled up to whole vectors.
    """
    factors = float32s(factors_address)
    for first in range(0, outputs, LANES):
        total = load_doubles(sums + 8 * first)
        address = weights + 4 * first
        for j in range(inputs):
            total = add_products(total, address, factors[j])
            address += 4 * outputs
        store_doubles(sums + 8 * first, total)


@inlined
def _whole(count: Any) -> Any:
    """Return a number of outputs filled up to whole vectors."""
    return (count + LANES - 1) // LANES * LANES


@exported
def step(
    model_address: Any,
    state_address: Any,
    item_address: Any,
    kind: Any,
    out_address: Any,
    scratch_address: Any,
) -> Any:
    """Write the state after an event, or without a state (0) what the event adds; return c.

    `scratch` has room for 12 bytes times MODEL_WIDTH.
    """
    model = int64s(model_address)
    channels = model[MODEL_CHANNELS]
    gate = float32s(model[MODEL_KINDS] + 4 * channels * kind)
    gain = float32s(model[MODEL_GAIN])
    decay = float32s(model[MODEL_DECAY])
    state = float32s(state_address)
    out = float32s(out_address)
    sums = float64s(scratch_address)

    for i in range(_whole(channels)):
        sums[i] = 0.0
    _multiply(
        model[MODEL_INPUT], item_address, model[MODEL_ITEMS], _whole(channels), scratch_address
    )
    for i in range(channels):
        entry = np.float32(np.float64(gain[i]) * np.float64(gate[i]) * sums[i])
        out[i] = decay[i] * state[i] + entry if state_address != 0 else entry
    return channels


@exported
def user_vector(
    model_address: Any,
    state_address: Any,
    context_address: Any,
    out_address: Any,
    scratch_address: Any,
    unused: Any,
) -> Any:
    """Write the user vector of a state and of a context, which may be missing (0); return d.

    `scratch` has room for 12 bytes times MODEL_WIDTH.
    """
    model = int64s(model_address)
    channels = model[MODEL_CHANNELS]
    hidden = model[MODEL_HIDDEN]
    d = model[MODEL_ITEMS]
    state = float32s(state_address)
    out = float32s(out_address)
    sums = float64s(scratch_address)
    factors_address = scratch_address + 8 * model[MODEL_WIDTH]
    factors = float32s(factors_address)
    b1 = float32s(model[MODEL_B1])
    b2 = float32s(model[MODEL_B2])

    total = 0.0
    for i in range(channels):
        total += np.float64(state[i])
    mean = total / channels
    energy = 0.0
    for i in range(channels):
        factors[i] = np.float32(np.float64(state[i]) - mean)
        energy += np.float64(factors[i]) * np.float64(factors[i])
    per_spread = 1.0 / sqrt(energy / channels + EPSILON)

    for i in range(_whole(hidden)):
        sums[i] = 0.0
    _multiply(model[MODEL_W1], factors_address, channels, _whole(hidden), scratch_address)
    for i in range(hidden):
        x = sums[i] * per_spread + np.float64(b1[i])
        factors[i] = np.float32(x / (1.0 + _exp(-x)))

    for i in range(d):
        sums[i] = np.float64(b2[i])
    for i in range(d, _whole(d)):
        sums[i] = 0.0
    _multiply(model[MODEL_W2], factors_address, hidden, _whole(d), scratch_address)
    if context_address != 0:
        _multiply(
            model[MODEL_CONTEXT], context_address, model[MODEL_TEXT], _whole(d), scratch_address
        )
    for i in range(d):
        out[i] = np.float32(sums[i])
    return d
