"""The user model by loops over Python's doubles, in the order of docs/MATH.md, "Equal bits"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def f(x: float) -> float:
    """Return a double rounded to binary32."""
    return float(np.float32(x))


def dot(start: float, weights: Iterable[Any], factors: Iterable[Any]) -> float:
    """Return start + weights · factors, added up one by one."""
    total = start
    for weight, factor in zip(weights, factors, strict=True):
        total += float(weight) * float(factor)
    return total


def naive_exp(x: float) -> float:
    """Return exp(x) by the series of docs/MATH.md."""
    limited = min(max(x, -708.0), 708.0)
    k = (limited * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0
    r = (limited - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    series = 0.0
    for n in range(10, -1, -1):
        series = series * r + 1.0 / math.factorial(n)
    return math.ldexp(series, int(k))


def naive_input(policy: Any, item: Any, kind: int) -> list[float]:
    """Return what an event adds to the decayed state."""
    added = []
    for decay, gate, row in zip(
        policy["state.decay"], policy["state.kind"][kind], policy["state.input"], strict=True
    ):
        gain = f(math.sqrt(1.0 - float(decay) * float(decay)))
        added.append(f((gain * float(gate)) * dot(0.0, row, item)))
    return added


def naive_step(policy: Any, state: Any, item: Any, kind: int) -> list[float]:
    """Return the state after an event."""
    return [
        f(f(float(decay) * float(channel)) + added)
        for decay, channel, added in zip(
            policy["state.decay"], state, naive_input(policy, item, kind), strict=True
        )
    ]


def naive_user_vector(policy: Any, state: Any, context: Any) -> list[float]:
    """Return the user vector of a state and a context, which may be None."""
    mean = dot(0.0, state, [1.0] * len(state)) / len(state)
    z = [f(float(channel) - mean) for channel in state]
    r = 1.0 / math.sqrt(dot(0.0, z, z) / len(z) + 1e-5)
    hidden = []
    for weights, bias in zip(policy["output.w1"], policy["output.b1"], strict=True):
        scaled = [
            f(float(w) * float(g)) for w, g in zip(weights, policy["output.gain"], strict=True)
        ]
        shifted = f(dot(float(bias), weights, policy["output.shift"]))
        x = dot(0.0, scaled, z) * r + shifted
        hidden.append(f(x / (1.0 + naive_exp(-x))))

    user = []
    for weights, bias, project in zip(
        policy["output.w2"], policy["output.b2"], policy["context.project"], strict=True
    ):
        total = dot(float(bias), weights, hidden)
        user.append(f(total if context is None else dot(total, project, context)))
    return user
