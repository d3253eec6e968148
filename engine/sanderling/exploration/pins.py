"""Pinned slots: the app chose their items, and the other slots are a plain slate of the scheme.

A pinned slot shows its item with probability 1. What a scheme draws does not depend on which slots
it fills, so the propensities of the other slots stay those of their shorter slate.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from sanderling.bundle.manifest import Exploration
from sanderling.exploration.draw import Draw


def plan_of_others(plan: Exploration, pinned: Collection[int]) -> Exploration:
    """Return the plan of the slots that are not pinned: of the guarded ones fewer may be left."""
    pinned_guarded = sum(slot < plan.guarded for slot in pinned)
    return msgspec.structs.replace(plan, guarded=plan.guarded - pinned_guarded)


def interleave(drawn: Draw, pinned: Collection[int], first_rank: int) -> Draw:
    """Return the slate that shows pins in the slots `pinned`, ascending, and a draw in the others.

    Pin i gets the rank `first_rank` + i. Where the draw is too short to reach a pinned slot, its
    pin follows the last drawn item.
    """
    marginal: list[float | None] = []
    slate = Draw([], [], [], marginal)
    waiting = list(pinned)
    next_drawn = 0
    for slot in range(len(drawn.ranks) + len(pinned)):
        if waiting and (slot >= waiting[0] or next_drawn == len(drawn.ranks)):
            waiting.pop(0)
            slate.ranks.append(first_rank + len(pinned) - len(waiting) - 1)
            slate.explored.append(False)
            slate.conditional.append(1.0)
            marginal.append(1.0)
        else:
            slate.ranks.append(drawn.ranks[next_drawn])
            slate.explored.append(drawn.explored[next_drawn])
            slate.conditional.append(drawn.conditional[next_drawn])
            marginal.append(drawn.marginal[next_drawn])
            next_drawn += 1
    return slate
