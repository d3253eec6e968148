"""Decisions with a quota for newcomers: which slots newcomers took says nothing of the others.

docs/MATH.md, "Exploration".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sanderling_trainer.data.logged_decisions import Decisions, Floats, Ints

# What the two-dimensional columns have behind the last slot of a slate.
_FILL = {
    "items": -1,
    "marginal": 1.0,
    "conditional": 1.0,
    "reward": 0.0,
    "judged": False,
    "ranks": 0,
    "newcomer": False,
}


def regular_slots(decisions: Decisions) -> Decisions:
    """Return the decisions without the slots of newcomers, which are shorter slates.

    Given which slots those were, the others are a plain slate of the scheme with the logged ε:
    `conditional` is their probability in it. `marginal` stays that over all slates.
    """
    if not (decisions.newcomers > 0).any():
        return decisions
    is_slot = np.arange(decisions.items.shape[1]) < decisions.slots[:, None]
    newcomer = decisions.newcomer & is_slot
    conditional = decisions.conditional / (1.0 - _rates(decisions))

    # A stable sort moves the slots of newcomers to the end, behind the slate.
    order = np.argsort(newcomer, axis=1, kind="stable")
    slots = decisions.slots - newcomer.sum(axis=1)
    is_left = np.arange(decisions.items.shape[1]) < slots[:, None]
    columns = {
        name: np.where(is_left, np.take_along_axis(column, order, axis=1), _FILL[name])
        for name, column in {**vars(decisions), "conditional": conditional}.items()
        if name in _FILL
    }
    return replace(decisions, slots=slots, **columns)


def _rates(decisions: Decisions) -> Floats:
    """Return float64 [m, K], less than 1: the probability with which a slot that shows none could
    have shown a newcomer."""
    slot = np.arange(decisions.items.shape[1])
    above: Ints = np.cumsum(decisions.newcomer, axis=1) - decisions.newcomer
    could = (slot >= decisions.guarded[:, None]) & (above < decisions.newcomers[:, None])
    rates = np.where(could & ~decisions.newcomer, decisions.newcomer_rate[:, None], 0.0)
    # With a rate of 1 no such slot exists, but a faulty device may log one.
    return np.minimum(rates, 1.0 - 1e-9)
