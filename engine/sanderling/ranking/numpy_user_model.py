"""The user model by numpy alone, for machines without compiled kernels.

The same operations as in `sanderling.kernels.user_model`, in the same order, and so the same bits
(docs/MATH.md, "Equal bits").
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import EPSILON

Vector = NDArray[np.float32]
Doubles = NDArray[np.float64]

# exp(x) = 2^k exp(r) with |r| <= ln(2) / 2, and exp(r) by its series up to r^10 / 10!
_LIMIT = 708.0  # of |x|, so that 2^k is a normal number
_PER_LN2 = 1.4426950408889634
_LN2_HIGH = 0.6931471803691238  # 32 bits, so that k times it is exact
_LN2_LOW = 1.9082149292705877e-10
_ROUNDING_SHIFT = 6755399441055744.0  # 1.5 x 2^52
_SERIES = [1.0 / math.factorial(power) for power in range(10, -1, -1)]


class UserWeights(NamedTuple):
    """What a policy's user model multiplies with, all float32; c channels, m hidden units."""

    input: Vector
    """[d, c]"""

    kinds: Vector
    """[kinds, c]"""

    decay: Vector
    """[c]: what one event leaves of each channel"""

    gain: Vector
    """[c]: sqrt(1 - decay²)"""

    w1: Vector
    """[c, m], with the gain of the normalization in it"""

    b1: Vector
    """[m], with the shift of the normalization in it"""

    w2: Vector
    """[m, d]"""

    b2: Vector
    """[d]"""

    context: Vector
    """[t + F, d], with F features of contexts"""


def user_weights(policy: Any) -> UserWeights:
    """Return the weights of a policy's tensors (docs/BUNDLE.md)."""
    tensors = {name: np.asarray(tensor, np.float32) for name, tensor in policy.items()}
    decay = tensors["state.decay"]
    w1 = tensors["output.w1"]
    # Features of contexts stand behind the text's vector (`ranking.contexts`).
    context = tensors["context.project"]
    if "context.feature_project" in tensors:
        context = np.concatenate([context, tensors["context.feature_project"]], axis=1)
    return UserWeights(
        input=np.ascontiguousarray(tensors["state.input"].T),
        kinds=np.ascontiguousarray(tensors["state.kind"]),
        decay=np.ascontiguousarray(decay),
        gain=np.sqrt(1.0 - np.square(decay, dtype=np.float64)).astype(np.float32),
        w1=np.ascontiguousarray((w1 * tensors["output.gain"]).T),
        b1=_rounded(_sums(tensors["output.b1"], w1.T, tensors["output.shift"])),
        w2=np.ascontiguousarray(tensors["output.w2"].T),
        b2=np.ascontiguousarray(tensors["output.b2"]),
        context=np.ascontiguousarray(context.T),
    )


def numpy_input(weights: UserWeights, item: Vector, kind: int) -> Vector:
    """Return what an event with an item vector [d] adds to the decayed state [c]."""
    gates = weights.gain.astype(np.float64) * weights.kinds[kind]
    return _rounded(gates * _sums(np.zeros(len(gates)), weights.input, item))


def numpy_user_vector(weights: UserWeights, state: Vector, context: Vector | None) -> Vector:
    """Return the user vector [d] for a state [c] and the vector [t] of a context."""
    mean = _total(state) / state.size
    centred = _rounded(state - np.float64(mean))
    per_spread = 1.0 / math.sqrt(
        _total(np.square(centred, dtype=np.float64)) / state.size + EPSILON
    )

    sums = _sums(np.zeros(weights.b1.size), weights.w1, centred)
    x = sums * per_spread + weights.b1
    hidden = _rounded(x / (1.0 + exp(-x)))

    user = _sums(weights.b2, weights.w2, hidden)
    return _rounded(user if context is None else _sums(user, weights.context, context))


def _sums(start: NDArray[Any], weights: Vector, factors: Vector) -> Doubles:
    """Return start [o] plus the products of weights [i, o] and factors [i], added one by one.

    A float64 holds each product exactly. numpy's own sums are in an order that is not defined.
    """
    total = start.astype(np.float64)
    for products in weights.astype(np.float64) * factors.astype(np.float64)[:, None]:
        total += products
    return total


def _total(values: NDArray[Any]) -> float:
    """Return the sum of values, added one by one."""
    return float(np.add.accumulate(values, dtype=np.float64)[-1])


def _rounded(values: Doubles) -> Vector:
    return values.astype(np.float32)


def exp(x: Doubles) -> Doubles:
    """Return exp(x) within 1e-11 of it, for x limited to -708 … 708."""
    limited = np.clip(x, -_LIMIT, _LIMIT)
    # The lowest bits of the sum are the integer k.
    shifted = limited * _PER_LN2 + _ROUNDING_SHIFT
    k = shifted - _ROUNDING_SHIFT
    r = (limited - k * _LN2_HIGH) - k * _LN2_LOW
    series = np.full_like(r, _SERIES[0])
    for coefficient in _SERIES[1:]:
        series = series * r + coefficient
    powers = (shifted.view(np.uint64) + np.uint64(1023)) << np.uint64(52)
    return series * powers.view(np.float64)
