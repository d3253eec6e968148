"""The exploration schemes: draw slates of ranks with exact propensities.

An item is its rank j = 0, 1, … in the greedy order (score descending, then row ascending) of the
pool, the M best items. Randomness comes in as uniforms. To add a scheme, name it in
`bundle.manifest.Exploration` and give its `draw` to `_SCHEMES` below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import mixture, plackett_luce, sequential
from sanderling.exploration.draw import Draw

Scores = NDArray[np.float64]
Uniforms = Sequence[tuple[float, float]]

__all__ = ["Draw", "draw", "greedy", "n_uniforms"]


def draw(plan: Exploration, slots: int, scores: Scores, uniforms: Uniforms) -> Draw:
    """Draw `slots` ranks by the plan's scheme, from a pool with scores float64 [M], best first.

    `uniforms` are pairs in [0, 1), as many as `n_uniforms` returns. The first `guarded` slots show
    the best items; the others draw from the rest of the pool. Raises `ValueError` unless
    0 <= slots <= M.
    """
    if not 0 <= slots <= len(scores):
        raise ValueError(f"expected 0 <= slots <= pool, found slots {slots} and pool {len(scores)}")
    fixed = min(plan.guarded, slots)
    scheme = _SCHEMES[plan.scheme]
    if fixed == 0:
        return scheme(plan, slots, scores, uniforms)
    return scheme(plan, slots - fixed, scores[fixed:], uniforms).with_fixed_prefix(fixed)


def n_uniforms(plan: Exploration, slots: int, pool: int) -> int:
    """Return how many pairs of uniforms a draw takes: one per slot, or one per item of the pool."""
    return pool if plan.scheme == "softmax" else slots


def greedy(plan: Exploration) -> Exploration:
    """Return the plan with exploration switched off: it shows the best items, with certainty."""
    return msgspec.structs.replace(plan, scheme="sequential", epsilon=0.0)


_SCHEMES: dict[str, Callable[[Exploration, int, Scores, Uniforms], Draw]] = {
    "sequential": lambda plan, slots, scores, uniforms: sequential.draw(
        slots, len(scores), plan.epsilon, uniforms
    ),
    "mixture": lambda plan, slots, scores, uniforms: mixture.draw(
        slots, len(scores), plan.epsilon, uniforms
    ),
    "softmax": lambda plan, slots, scores, uniforms: plackett_luce.draw(
        slots, scores, plan.temperature, uniforms
    ),
}
