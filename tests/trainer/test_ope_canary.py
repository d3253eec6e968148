"""The sequential test of a canary: its actions, its errors over many looks, and its bad inputs."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling_trainer.evaluation.ope.canary import (
    CONTINUE,
    PROMOTE,
    ROLL_BACK,
    Arm,
    canary_decision,
)

pytestmark = pytest.mark.lab


def arm(installs, rate, rng, slots=600):
    """Return installs whose own click rates differ by a third of the mean."""
    judged = rng.integers(slots // 2, slots * 3 // 2, installs)
    own_rate = rate * rng.gamma(9.0, 1.0 / 9.0, installs)
    return Arm(rng.binomial(judged, np.minimum(own_rate, 1.0)).astype(float), judged.astype(float))


@pytest.mark.parametrize(("rate", "action"), [(0.11, PROMOTE), (0.04, ROLL_BACK), (0.07, CONTINUE)])
def test_clear_differences_decide_and_others_go_on(rate, action):
    """1,500 canary installs against 3,000 decide a difference of two fifths, and not of none."""
    rng = np.random.default_rng(1)
    decided = canary_decision(arm(1500, rate, rng), arm(3000, 0.07, rng), 1, rng)
    assert decided.action == action
    assert decided.canary.low <= rate <= decided.canary.high


def test_an_equal_canary_is_promoted_in_the_end():
    """With 60,000 installs in each arm an equal canary is surely not worse by 5 %."""
    rng = np.random.default_rng(2)
    decided = canary_decision(arm(60000, 0.07, rng), arm(60000, 0.07, rng), 3, rng)
    assert decided.action == PROMOTE


def test_many_looks_do_not_raise_the_error():
    """Looked at on ten nights, at most 3 of 60 worse canaries are promoted or equal ones undone."""
    promoted = rolled_back = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for rate in (0.95 * 0.2, 0.2):
            actions = set()
            canary = active = Arm(np.zeros(60), np.zeros(60))
            for night in range(1, 11):
                canary = Arm(*(a + b for a, b in zip(canary, arm(60, rate, rng, 40), strict=True)))
                active = Arm(*(a + b for a, b in zip(active, arm(60, 0.2, rng, 40), strict=True)))
                actions.add(canary_decision(canary, active, night, rng).action)
            promoted += rate < 0.2 and PROMOTE in actions
            rolled_back += rate == 0.2 and ROLL_BACK in actions
    assert promoted <= 3
    assert rolled_back <= 3


def test_nothing_judged_goes_on_and_looks_count_from_one():
    """Without a judged slot the rate may be anything; a look of 0 is an error."""
    rng = np.random.default_rng(0)
    empty = Arm(np.zeros(3), np.zeros(3))
    decided = canary_decision(empty, arm(100, 0.07, rng), 1, rng)
    assert decided.action == CONTINUE
    assert (decided.canary.low, decided.canary.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="counted from 1, found look 0"):
        canary_decision(empty, empty, 0, rng)
