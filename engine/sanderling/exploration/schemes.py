"""The exploration schemes: draw slates of ranks with exact propensities.

An item is its rank j = 0, 1, … in the greedy order (score descending, then row ascending) of the
pool, the M best items; newcomer i of the quota (`exploration.newcomers`) has the rank M + i.
Randomness comes in as uniforms. To add a scheme, name it in `bundle.manifest.Exploration` and give
its `draw` to `_SCHEMES` below, its marginals to `_MARGINALS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import mixture, newcomers, plackett_luce, sequential
from sanderling.exploration.draw import Draw
from sanderling.exploration.newcomers import Marginals

Scores = NDArray[np.float64]
Uniforms = Sequence[tuple[float, float]]

__all__ = ["Draw", "draw", "greedy", "has_quota", "n_uniforms"]


def draw(
    plan: Exploration, slots: int, scores: Scores, uniforms: Uniforms, n_newcomers: int = 0
) -> Draw:
    """Draw `slots` ranks by the plan's scheme, from a pool with scores float64 [M], best first.

    `uniforms` are pairs in [0, 1), as many as `n_uniforms` returns. The first `guarded` slots show
    the best items; the others draw from the rest of the pool, and by the plan's quota from
    `n_newcomers` items outside it. Raises `ValueError` unless 0 <= slots <= M.
    """
    if not 0 <= slots <= len(scores):
        raise ValueError(f"expected 0 <= slots <= pool, found slots {slots} and pool {len(scores)}")
    fixed = min(plan.guarded, slots)
    if slots > fixed and has_quota(plan, n_newcomers):
        blocks = n_uniforms(plan, slots, len(scores))
        pairs = uniforms[:blocks], uniforms[blocks:]
        drawn = _draw_with_newcomers(plan, slots - fixed, scores[fixed:], pairs, n_newcomers)
    else:
        drawn = _SCHEMES[plan.scheme](plan, slots - fixed, scores[fixed:], uniforms)
    return drawn.with_fixed_prefix(fixed) if fixed else drawn


def has_quota(plan: Exploration, n_newcomers: int) -> bool:
    """Return whether slots may show one of so many newcomers."""
    return n_newcomers > 0 and newcomers.rate(plan) > 0.0


def n_uniforms(plan: Exploration, slots: int, pool: int, n_newcomers: int = 0) -> int:
    """Return how many pairs of uniforms a draw takes: one per slot, or one per item of the pool;
    with newcomers one more per slot."""
    blocks = pool if plan.scheme == "softmax" else slots
    return blocks + slots if has_quota(plan, n_newcomers) else blocks


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


def _draw_with_newcomers(
    plan: Exploration,
    slots: int,
    scores: Scores,
    uniforms: tuple[Uniforms, Uniforms],
    n_newcomers: int,
) -> Draw:
    """Draw slots of which none is guarded, by the scheme's uniforms and those of the quota."""
    eta = newcomers.rate(plan)
    chosen = newcomers.choose(eta, slots, n_newcomers, uniforms[1])
    regular_plan = newcomers.regular(plan)
    drawn = _SCHEMES[plan.scheme](regular_plan, chosen.count(None), scores, uniforms[0])
    # As many newcomers as slots are never used up, nor are more.
    marginals = _marginals(regular_plan, slots, len(scores), eta, min(n_newcomers, slots))
    return newcomers.interleave(drawn, chosen, eta, len(scores), n_newcomers, marginals)


@lru_cache(maxsize=64)
def _marginals(
    regular_plan: Exploration, slots: int, pool: int, eta: float, n_newcomers: int
) -> Marginals | None:
    """Return the marginals of slates with newcomers; None for long ones and under `softmax`."""
    if slots > sequential.MAX_MARGINAL_SLOTS or regular_plan.scheme not in _MARGINALS:
        return None
    by_rank = _MARGINALS[regular_plan.scheme](slots, pool, regular_plan.epsilon)
    return newcomers.mix(by_rank, eta, n_newcomers)


_MARGINALS: dict[str, Callable[[int, int, float], Scores]] = {
    "sequential": sequential.marginals_by_rank,
    "mixture": mixture.marginals_by_rank,
}
