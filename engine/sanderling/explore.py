"""Epsilon-greedy exploration over ranks, with exact propensities. Pure: numbers in, numbers out.

Scheme `sequential`: an independent coin for each slot, without replacement. With M items in the pool and R = M - k + 1
of them left at slot k, the slot takes the best one left with probability 1 - ε, else one of the R uniformly.

Refuses to know items, scores and clocks: an item is its rank j = 0, 1, … in the greedy order (score descending, then
row ascending), and randomness comes in as uniforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SCHEME = "sequential"


@dataclass(frozen=True)
class Draw:
    """One slate of K slots as ranks into the greedy order.

    `conditional[k]` is the probability of `ranks[k]` given the slots before it; products of it are the prefix and
    joint propensities. `marginal[k]` is the probability that slot k shows that item, over all slates. `explored[k]`
    tells that the coin of slot k fell on exploring, even if it then drew the best item left.
    """

    ranks: list[int]
    explored: list[bool]
    conditional: list[float]
    marginal: list[float]


def draw(slots: int, pool: int, epsilon: float, uniforms: Sequence[tuple[float, float]]) -> Draw:
    """Draw `slots` ranks out of `pool`; each slot takes two uniforms in [0, 1): a coin and a pick.

    Raises `ValueError` unless 0 <= slots <= pool and 0 <= epsilon <= 1.
    """
    _check(slots, pool, epsilon)
    left = list(range(pool))
    ranks, explored, conditional = [], [], []
    for coin, pick in uniforms[:slots]:
        explores = coin < epsilon
        at = int(pick * len(left)) if explores else 0
        explored.append(explores)
        conditional.append(epsilon / len(left) + (1.0 - epsilon) * (at == 0))
        ranks.append(left.pop(at))
    table = marginals(slots, pool, epsilon)
    return Draw(ranks, explored, conditional, [float(table[slot, rank]) for slot, rank in enumerate(ranks)])


@lru_cache(maxsize=64)
def marginals(slots: int, pool: int, epsilon: float) -> NDArray[np.float64]:
    """Return float64 [slots, pool]: the exact probability that slot k shows the item of rank j.

    Dynamic programming over u, the number of better-ranked items already taken, while the item itself is not: v = k - u
    worse-ranked ones are then taken. An item ranked below the slate's length can only be reached by exploring, and its
    probability has a closed form. Rows sum to 1.
    """
    _check(slots, pool, epsilon)
    table = np.empty((slots, pool))
    head = min(slots, pool)
    rank = np.arange(head)[:, None]
    better = np.arange(slots + 1)[None, :]
    taken = np.zeros((head, slots + 1))
    taken[:, 0] = 1.0
    tail = 1.0
    for slot in range(slots):
        left = pool - slot
        table[slot, :head] = (taken * (epsilon / left + (1.0 - epsilon) * (better == rank))).sum(axis=1)
        table[slot, head:] = tail * epsilon / left
        tail *= 1.0 - epsilon / left
        to_better = taken * (epsilon * np.maximum(rank - better, 0) / left + (1.0 - epsilon) * (better < rank))
        to_worse = taken * epsilon * np.maximum(pool - 1 - rank - (slot - better), 0) / left
        taken = to_worse
        taken[:, 1:] += to_better[:, :-1]
    table.flags.writeable = False
    return table


def _check(slots: int, pool: int, epsilon: float) -> None:
    if not 0 <= slots <= pool:
        raise ValueError(f"expected 0 <= slots <= pool, found slots {slots} and pool {pool}")
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"expected epsilon in [0, 1], found {epsilon}")
