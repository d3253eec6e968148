"""The quota of slots that newcomers get, whatever the scheme that draws the other slots.

Each slot behind the guarded ones shows a newcomer with probability η = ε ρ, by its own Bernoulli
trial, as long as one of the N newcomers is left: one of those, each as likely. The other slots are
the scheme's draw of a shorter slate, from the pool as ever, with ε' in the place of ε. A slot of a
scheme does not depend on the slots after it, so with v newcomers above slot k

    conditional_k = η / (N - v)                             for a newcomer
    conditional_k = (1 - η 1[v < N]) conditional'_k-v(j)    for rank j of the pool
    marginal_k    = P(v < N) η / N                          for a newcomer, by symmetry
    marginal_k    = Σ_v P(v) (1 - η 1[v < N]) marginal'_k-v(j)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.exploration.draw import Draw


class Marginals(NamedTuple):
    """The marginals of a slate of K slots with a quota for newcomers."""

    by_rank: list[list[float]]
    """[K, K + 1]: that a slot shows rank 0 … K - 1 of the pool, and any one later rank."""

    newcomer: list[float]
    """[K]: that a slot shows a newcomer, whichever."""


def rate(plan: Exploration) -> float:
    """Return η, the probability that a slot behind the guarded ones shows a newcomer."""
    return plan.epsilon * plan.newcomers


@lru_cache(maxsize=64)
def regular(plan: Exploration) -> Exploration:
    """Return the plan of the slots that are not newcomers'.

    Its ε' = (ε - η) / (1 - η) keeps the share of slots that explore: η + (1 - η) ε' = ε.
    """
    eta = rate(plan)
    # With η = 1 such slots come after the last newcomer only: they explore, as all do with ε = 1.
    epsilon = plan.epsilon if eta == 1.0 else (plan.epsilon - eta) / (1.0 - eta)
    return msgspec.structs.replace(plan, epsilon=max(epsilon, 0.0))


def choose(
    eta: float, slots: int, newcomers: int, uniforms: Sequence[tuple[float, float]]
) -> list[int | None]:
    """Return for each slot which of the newcomers 0 … N - 1 it shows, None for none.

    A block's two uniforms decide whether the slot shows a newcomer, and pick one.
    """
    # A Fisher-Yates shuffle of 0 … N - 1 that stores only what it moved: O(slots), whatever N is.
    moved: dict[int, int] = {}
    left = newcomers
    chosen: list[int | None] = []
    for trial, pick in uniforms[:slots]:
        if left == 0 or trial >= eta:
            chosen.append(None)
            continue
        place = int(pick * left)
        chosen.append(moved.get(place, place))
        left -= 1
        moved[place] = moved.get(left, left)
    return chosen


# Six parameters: the two draws that become one, and what both were drawn from.
def interleave(
    drawn: Draw,
    chosen: Sequence[int | None],
    eta: float,
    pool: int,
    newcomers: int,
    marginals: Marginals | None,
) -> Draw:
    """Return the slate of the chosen newcomers and, in the other slots, a scheme's draw.

    Newcomer i gets the rank `pool` + i: no rank of the pool.
    """
    marginal: list[float | None] = []
    slate = Draw([], [], [], marginal)
    regular_slots = zip(drawn.ranks, drawn.explored, drawn.conditional, strict=True)
    left = newcomers
    for slot, newcomer in enumerate(chosen):
        if newcomer is None:
            rank, explored, conditional = next(regular_slots)
            conditional *= 1.0 - eta if left else 1.0
            of_slot = marginals.by_rank[slot][min(rank, len(chosen))] if marginals else None
        else:
            rank, explored, conditional = pool + newcomer, True, eta / left
            left -= 1
            of_slot = marginals.newcomer[slot] / newcomers if marginals else None
        slate.ranks.append(rank)
        slate.explored.append(explored)
        slate.conditional.append(conditional)
        marginal.append(of_slot)
    return slate


def mix(by_rank: NDArray[np.float64], eta: float, newcomers: int) -> Marginals:
    """Return the marginals of K slots, given the scheme's own [K, K + 1] of each rank.

    The scheme's rows are weighted by the distribution of v, the newcomers above a slot.
    """
    slots = len(by_rank)
    trial = np.where(np.arange(slots + 1) < newcomers, eta, 0.0)
    mixed = np.empty_like(by_rank)
    shows_newcomer = []
    above = np.zeros(slots + 1)  # P(v)
    above[0] = 1.0
    for slot in range(slots):
        one_more = above * trial
        none = above - one_more
        mixed[slot] = none[slot::-1] @ by_rank[: slot + 1]
        shows_newcomer.append(float(one_more.sum()))
        above = none
        above[1:] += one_more[:-1]
    # Sums of products may round to a little over 1, which the wire does not take.
    return Marginals(np.minimum(mixed, 1.0).tolist(), shows_newcomer)
