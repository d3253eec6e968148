"""Randomized response on the click bit (Warner 1965): any single uploaded reward is deniable.

With privacy ε a bit is uploaded unchanged with probability e^ε / (1 + e^ε) and flipped with p = 1 /
(1 + e^ε). The uploaded ±1 divided by 1 - 2p is an unbiased estimate of the true ±1. Whether a slot
is flipped follows from the device's secret: rewarding the same slot again reveals nothing more.
"""

from __future__ import annotations

import hmac
import math


def flip_probability(epsilon: float) -> float:
    """Return p, the probability with which a click bit is flipped: in (0, 1/2) for ε > 0."""
    return 1.0 / (1.0 + math.exp(epsilon))


def flip(value: float, secret: bytes, decision: str, slot: int, epsilon: float) -> float:
    """Return 1.0 or -1.0: whether `value` is above 0, flipped with the probability of ε."""
    digest = hmac.digest(secret, f"noise\0{decision}\0{slot}".encode(), "sha256")
    is_flipped = int.from_bytes(digest[:8], "big") < flip_probability(epsilon) * 2.0**64
    return 1.0 if (value > 0) != is_flipped else -1.0
