"""Scheme `sequential`: each slot explores by its own Bernoulli trial, without replacement.

With M items in the pool and R = M - k + 1 of them left at slot k, the slot takes the best one left
with probability 1 - ε, else one of the R uniformly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.draw import Draw

# Longer slates have no marginals: their cost grows with the third power of the slots.
MAX_MARGINAL_SLOTS = 128


def draw(slots: int, pool: int, epsilon: float, uniforms: Sequence[tuple[float, float]]) -> Draw:
    """Draw `slots` ranks out of `pool`; a block's two uniforms decide to explore and pick.

    Marginals are None for slates of more than `MAX_MARGINAL_SLOTS` slots. Raises `ValueError`
    unless 0 <= slots <= pool and 0 <= epsilon <= 1.
    """
    best, others, table = _probabilities(slots, pool, epsilon)
    remaining = list(range(pool))
    ranks = []
    explored = []
    conditional = []
    for slot in range(slots):
        trial, pick = uniforms[slot]
        position = int(pick * len(remaining)) if trial < epsilon else 0
        explored.append(trial < epsilon)
        conditional.append(others[slot] if position else best[slot])
        ranks.append(remaining.pop(position))
    if slots > MAX_MARGINAL_SLOTS:
        return Draw(ranks, explored, conditional, [None] * slots)
    marginal = [row[min(rank, slots)] for row, rank in zip(table, ranks, strict=True)]
    return Draw(ranks, explored, conditional, marginal)


@lru_cache(maxsize=64)
def _probabilities(
    slots: int, pool: int, epsilon: float
) -> tuple[list[float], list[float], list[list[float]]]:
    """Return each slot's probability of the best item left, of any other, and the marginals.

    The marginals are those of `_marginals`, as lists, none for long slates.
    """
    each = (epsilon,) * slots
    _check(slots, pool, each)
    others = [epsilon / (pool - slot) for slot in range(slots)]
    table = _marginals(slots, pool, each).tolist() if slots <= MAX_MARGINAL_SLOTS else []
    return [other + (1.0 - epsilon) for other in others], others, table


def marginals(slots: int, pool: int, epsilon: float | tuple[float, ...]) -> NDArray[np.float64]:
    """Return float64 [slots, pool]: the probability that slot k shows rank j; rows sum to 1.

    `epsilon` is a tuple with one for each slot, or one for all. Raises `ValueError` as `draw` does.
    """
    each = epsilon if isinstance(epsilon, tuple) else (epsilon,) * slots
    _check(slots, pool, each)
    return _marginals(slots, pool, each)[:, np.minimum(np.arange(pool), slots)]


def marginals_by_rank(slots: int, pool: int, epsilon: float) -> NDArray[np.float64]:
    """Return float64 [slots, slots + 1]: the marginals of the ranks 0 … slots - 1 and of any later
    one. Raises `ValueError` as `draw` does."""
    each = (epsilon,) * slots
    _check(slots, pool, each)
    return _marginals(slots, pool, each)


@lru_cache(maxsize=64)
def _marginals(slots: int, pool: int, epsilons: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the marginals [slots, slots + 1] of the ranks 0 … slots - 1 and of any later one.

    Dynamic programming over u, the number of better-ranked items already taken, while the item
    itself is not: then k - u worse-ranked ones are taken. A later rank can only be reached by
    exploring, and has a closed form.
    """
    table = np.empty((slots, slots + 1))
    rank = np.arange(slots)[:, None]
    better = np.arange(slots + 1)
    later_left = 1.0  # the probability that a given later rank is not taken yet
    # [rank, u]: the probability that u better ranks are taken and the rank itself is not
    taken = np.zeros((slots, slots + 1))
    taken[:, 0] = 1.0
    for slot, epsilon in enumerate(epsilons):
        remaining = pool - slot
        each = epsilon / remaining  # the probability of any item by exploring
        u = better[: slot + 1]
        current = taken[:, : slot + 1]
        table[slot, :slots] = (current * (each + (1.0 - epsilon) * (u == rank))).sum(axis=1)
        table[slot, slots] = later_left * epsilon / remaining
        later_left *= 1.0 - each

        to_better = current * (each * np.maximum(rank - u, 0) + (1.0 - epsilon) * (u < rank))
        current *= each * np.maximum(pool - 1 - rank - (slot - u), 0)  # to a worse rank, in place
        taken[:, 1 : slot + 2] += to_better
    table.flags.writeable = False  # it is cached and shared
    return table


def _check(slots: int, pool: int, epsilons: tuple[float, ...]) -> None:
    if not 0 <= slots <= pool:
        raise ValueError(f"expected 0 <= slots <= pool, found slots {slots} and pool {pool}")
    if len(epsilons) != slots or not all(0.0 <= epsilon <= 1.0 for epsilon in epsilons):
        raise ValueError(
            f"expected an epsilon in [0, 1] for each of {slots} slots, found {epsilons}"
        )
