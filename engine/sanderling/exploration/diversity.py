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
from functools import cached_property

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

    @cached_property
    def _norms(self) -> Floats:
        return np.sqrt(np.square(self.vectors).sum(axis=1))

    def values(self, likeness: Floats | None) -> Floats:
        """Return the values [M] by each item's largest cosine with those before it, None if there
        are none."""
        relevance = (1.0 - self.diversity) * self.scores
        if likeness is None:
            return relevance
        span = float(self.scores[0] - self.scores[-1]) or 1.0
        return relevance - self.diversity * span * likeness

    def likeness_to_pinned(self) -> Floats | None:
        """Return the largest cosine of each item with a pinned one, [M], None without pins."""
        likeness = None
        for vector in self.pinned:
            likeness = self._with(likeness, vector)
        return likeness

    def likeness_with(self, likeness: Floats | None, rank: int) -> Floats:
        """Return the largest cosines when an item of the pool joins those before."""
        return self._with(likeness, self.vectors[rank])

    def _with(self, likeness: Floats | None, vector: Floats) -> Floats:
        # Sums of products of whole numbers are exact in doubles, in any order.
        norms = self._norms * np.sqrt(np.square(vector).sum())
        cosines = (self.vectors @ vector) / np.where(norms > 0.0, norms, 1.0)
        return cosines if likeness is None else np.maximum(likeness, cosines)


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
    likeness = relevance.likeness_to_pinned()
    is_left = np.ones(len(relevance.scores), np.bool_)
    slate = []
    for _ in range(slots):
        rank = int(np.where(is_left, relevance.values(likeness), -np.inf).argmax())
        slate.append(rank)
        is_left[rank] = False
        likeness = relevance.likeness_with(likeness, rank)
    return [*slate, *np.flatnonzero(is_left).tolist()]


def _draw_behind(
    above: Sequence[int], plan: Exploration, slots: int, relevance: Relevance, uniforms: Uniforms
) -> Draw:
    """Draw `slots` by scheme `sequential` or `softmax` behind the ranks `above`."""
    likeness = relevance.likeness_to_pinned()
    for rank in above:
        likeness = relevance.likeness_with(likeness, rank)
    left = np.delete(np.arange(len(relevance.scores)), above)
    drawn = Draw([], [], [], [None] * slots)
    for slot in range(slots):
        values = relevance.values(likeness)[left]
        best = int(values.argmax())
        place, explored, conditional = _PICKS[plan.scheme](plan, values, best, uniforms[slot])
        rank = int(left[place])
        drawn.ranks.append(rank)
        drawn.explored.append(explored)
        drawn.conditional.append(conditional)
        left = np.delete(left, place)
        likeness = relevance.likeness_with(likeness, rank)
    return drawn


Pick = tuple[int, bool, float]
"""The place of what a slot shows among the items left, whether it explored, and its probability."""


def _pick_sequential(
    plan: Exploration, values: Floats, best: int, uniforms: tuple[float, float]
) -> Pick:
    trial, pick = uniforms
    explores = trial < plan.epsilon
    place = int(pick * len(values)) if explores else best
    each = plan.epsilon / len(values)
    return place, explores, each + (1.0 - plan.epsilon) if place == best else each


def _pick_softmax(
    plan: Exploration, values: Floats, best: int, uniforms: tuple[float, float]
) -> Pick:
    logits = np.maximum((values - values[best]) / plan.temperature, -MAX_DISTANCE)
    weights = np.exp(logits)
    below = np.cumsum(weights)
    # The product may round up to the sum.
    place = min(int(np.searchsorted(below, uniforms[0] * below[-1], side="right")), len(below) - 1)
    return place, place != best, float(weights[place] / below[-1])


_PICKS: dict[str, Callable[[Exploration, Floats, int, tuple[float, float]], Pick]] = {
    "sequential": _pick_sequential,
    "softmax": _pick_softmax,
}
