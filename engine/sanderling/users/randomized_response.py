"""Randomised response on the click bit (Warner 1965): what leaves the device is sometimes the opposite of what was.

With privacy ε a click is told truly with probability e^ε / (1 + e^ε), so that no single one can be held against
anybody; the told ±1 divided by 1 - 2p is right in expectation. The noise of a slot follows from the device's secret, so
that asking again tells nothing more. Refuses to know users and storage.
"""

from __future__ import annotations

import hmac
import math


def chance(epsilon: float) -> float:
    """Return p, the probability with which a click bit is flipped: in (0, 1/2) for ε > 0."""
    return 1.0 / (1.0 + math.exp(epsilon))


def told(value: float, secret: bytes, decision: str, slot: int, epsilon: float) -> float:
    """Return 1.0 or -1.0: whether `value` is above 0, or the opposite of it."""
    digest = hmac.digest(secret, f"noise\0{decision}\0{slot}".encode(), "sha256")
    flipped = int.from_bytes(digest[:8], "big") < chance(epsilon) * 2.0**64
    return 1.0 if (value > 0) != flipped else -1.0
