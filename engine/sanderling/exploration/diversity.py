"""Diverse slates: each slot weighs an item's score against its likeness to the items before it.

With the diversity λ an item j of the pool has at a slot the value

    (1 - λ) s_j - λ r max_i cos(v_j, v_i)

where i runs over the pool's items in the slots above and over all pinned items, and r is the range
of the pool's scores, 1 if that is 0: maximal marginal relevance (Carbonell and Goldstein 1998) of
scores scaled to [0, 1]. The scheme draws by these values in the place of scores. Which item is the
best one left then depends on what was drawn above, so `sequential` and `softmax` have exact
conditional propensities and no marginals. The greedy slate depends on no draw, so `mixture`, and
slates that do not explore, have both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import newcomers, schemes
from sanderling.exploration.draw import Draw
from sanderling.exploration.plackett_luce import MAX_DISTANCE

Floats = NDArray[np.float64]
Uniforms = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Relevance:
    """What the values of a pool of M items depend on."""

    diversity: float
    """λ, in [0, 1]."""

    scores: Floats
    """[M], best first."""

    vectors: Floats
    """[M, d], whole numbers (the int8 rows), so that all machines have the same cosines."""

    pinned: Floats
    """[p, d], likewise."""


class _Values:
    """The values of the items left, while a slate is drawn from the top."""

    def __init__(self, relevance: Relevance) -> None:
        scores = relevance.scores
        span = float(scores[0] - scores[-1]) if len(scores) else 0.0
        self._vectors = relevance.vectors
        self._norms = _norms(relevance.vectors)
        self._worth = (1.0 - relevance.diversity) * scores
        self._cost = relevance.diversity * (span or 1.0)
        self._likeness: Floats | None = None
        pinned = relevance.pinned
        for vector, norm in zip(pinned, _norms(pinned).tolist(), strict=True):
            self._add(vector, norm)

    def now(self) -> Floats:
        """Return the values [M], -inf for what was taken."""
        return self._worth if self._likeness is None else self._worth - self._cost * self._likeness

    def take(self, rank: int) -> None:
        """Take an item: the others are compared with it from now on."""
        self._worth[rank] = -np.inf
        self._add(self._vectors[rank], float(self._norms[rank]))

    def _add(self, vector: Floats, norm: float) -> None:
        # Sums of products of whole numbers are exact in doubles, in any order.
        cosines = (self._vectors @ vector) / (self._norms * norm)
        before = self._likeness
        self._likeness = cosines if before is None else np.maximum(before, cosines)


def _norms(vectors: Floats) -> Floats:
    """Return the norms of vectors [e, d], 1 for zeros, which are like nothing."""
    norms = np.sqrt(np.square(vectors).sum(axis=1))
    return np.where(norms > 0.0, norms, 1.0)


def draw(
    plan: Exploration,
    slots: int,
    relevance: Relevance,
    uniforms: Uniforms,
    n_newcomers: int = 0,
) -> Draw:
    """Draw `slots` ranks of the pool, and of newcomers, as `schemes.draw` does.

    `uniforms` are as many as there; ranks are by score. Newcomers are drawn whatever they are like,
    and are not among the items before a slot.
    """
    pool = len(relevance.scores)
    if plan.scheme == "mixture" or plan.guarded >= slots or _never_explores(plan):
        order = _greedy_order(relevance, slots)
        drawn = schemes.draw(plan, slots, relevance.scores, uniforms, n_newcomers)
        return replace(drawn, ranks=[order[r] if r < pool else r for r in drawn.ranks])

    guarded = _greedy_order(relevance, plan.guarded)[: plan.guarded]
    slots -= len(guarded)
    if schemes.has_quota(plan, n_newcomers):
        blocks = schemes.n_uniforms(plan, slots + len(guarded), pool)
        eta = newcomers.rate(plan)
        chosen = newcomers.choose(eta, slots, n_newcomers, uniforms[blocks:])
        regular = newcomers.regular(plan)
        drawn = _draw_behind(guarded, regular, chosen.count(None), relevance, uniforms)
        drawn = newcomers.interleave(drawn, chosen, eta, pool, n_newcomers, None)
    else:
        drawn = _draw_behind(guarded, plan, slots, relevance, uniforms)
    return Draw(
        guarded + drawn.ranks,
        [False] * len(guarded) + drawn.explored,
        [1.0] * len(guarded) + drawn.conditional,
        [None] * (len(guarded) + slots),
    )


def _never_explores(plan: Exploration) -> bool:
    return plan.scheme == "sequential" and plan.epsilon == 0.0


def _greedy_order(relevance: Relevance, slots: int) -> list[int]:
    """Return all ranks of the pool: the greedy slate, then the others by score."""
    values = _Values(relevance)
    slate = []
    for _ in range(slots):
        slate.append(int(values.now().argmax()))
        values.take(slate[-1])
    shown = set(slate)
    return [*slate, *(rank for rank in range(len(relevance.scores)) if rank not in shown)]


def _draw_behind(
    above: Sequence[int], plan: Exploration, slots: int, relevance: Relevance, uniforms: Uniforms
) -> Draw:
    """Draw `slots` by scheme `sequential` or `softmax` behind the ranks `above`."""
    values = _Values(relevance)
    for rank in above:
        values.take(rank)
    left = [rank for rank in range(len(relevance.scores)) if rank not in above]
    drawn = Draw([], [], [], [None] * slots)
    for slot in range(slots):
        rank, explored, conditional = _PICKS[plan.scheme](plan, values.now(), left, uniforms[slot])
        drawn.ranks.append(rank)
        drawn.explored.append(explored)
        drawn.conditional.append(conditional)
        left.remove(rank)
        values.take(rank)
    return drawn


Pick = tuple[int, bool, float]
"""The rank that a slot shows, whether it explored, and its probability."""


def _pick_sequential(
    plan: Exploration, values: Floats, left: Sequence[int], uniforms: tuple[float, float]
) -> Pick:
    trial, pick = uniforms
    best = int(values.argmax())
    explores = trial < plan.epsilon
    rank = left[int(pick * len(left))] if explores else best
    each = plan.epsilon / len(left)
    return rank, explores, each + (1.0 - plan.epsilon) if rank == best else each


def _pick_softmax(
    plan: Exploration, values: Floats, left: Sequence[int], uniforms: tuple[float, float]
) -> Pick:
    best = int(values.argmax())
    of_left = values[left]
    logits = np.maximum((of_left - values[best]) / plan.temperature, -MAX_DISTANCE)
    weights = np.exp(logits)
    below = np.cumsum(weights)
    # The product may round up to the sum.
    place = min(int(np.searchsorted(below, uniforms[0] * below[-1], side="right")), len(left) - 1)
    return left[place], left[place] != best, float(weights[place] / below[-1])


_PICKS: dict[str, Callable[[Exploration, Floats, Sequence[int], tuple[float, float]], Pick]] = {
    "sequential": _pick_sequential,
    "softmax": _pick_softmax,
}
