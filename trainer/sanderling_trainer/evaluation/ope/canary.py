"""The sequential test of a canary: a release on a few per cent of the installs, against the rest.

It may be looked at every night. The error of all looks together is bounded: look t gets
6 / (π t)² of it, which sums to all of it, and half of that goes to each of the two rates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.intervals import Interval, betting

Floats = NDArray[np.float64]

PROMOTE = "promote"
ROLL_BACK = "roll back"
CONTINUE = "continue"


class Arm(NamedTuple):
    """What the installs of one release did since the canary began."""

    clicks: Floats
    """Float64 [installs]."""

    slots: Floats
    """Judged ones, float64 [installs]."""


class CanaryDecision(NamedTuple):
    """What to do with the canary, and the two click rates that say so."""

    action: str
    """`promote`, `roll back` or `continue`."""

    canary: Interval
    active: Interval


# Six parameters: two arms, the look, its two error settings, and the order of the bets.
def canary_decision(
    canary: Arm,
    active: Arm,
    look: int,
    rng: np.random.Generator,
    *,
    margin: float = 0.05,
    error: float = 0.05,
) -> CanaryDecision:
    """Return `promote`, `roll back` or `continue` at the look-th look, counted from 1.

    Installs must have been assigned at random. Promoted is a canary whose click rate is surely
    more than (1 - `margin`) times the active one; rolled back is one whose rate is surely lower
    than the active one. Whatever the sample size and however often it is looked at, a canary that
    is worse by the margin is promoted, and one that is not worse rolled back, with a probability
    of at most `error`. `rng` gives the installs an order, which the bets need.

    Raises:
        ValueError: `look` is below 1.
    """
    if look < 1:
        raise ValueError(f"expected looks counted from 1, found look {look}")

    confidence = 1.0 - error * 6.0 / (np.pi * look) ** 2 / 2.0
    of_canary = click_rate(canary, confidence, rng)
    of_active = click_rate(active, confidence, rng)
    if of_canary.high < of_active.low:
        action = ROLL_BACK
    elif of_canary.low > (1.0 - margin) * of_active.high:
        action = PROMOTE
    else:
        action = CONTINUE
    return CanaryDecision(action, of_canary, of_active)


def click_rate(arm: Arm, confidence: float, rng: np.random.Generator) -> Interval:
    """Return clicks per judged slot, with an interval that holds whatever the sample size.

    Anything from 0 to 1 where nothing is judged.
    """
    judged = np.flatnonzero(arm.slots > 0.0)
    if not len(judged):
        return Interval(float("nan"), 0.0, 1.0)
    order = rng.permutation(judged)
    return betting(arm.clicks[order], arm.slots[order], 0.0, 1.0, confidence)
