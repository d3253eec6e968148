"""Scheme `sequential`: an independent coin for each slot, without replacement.

With M items in the pool and R = M - k + 1 of them left at slot k, the slot takes the best one left with probability
1 - ε, else one of the R uniformly. Refuses to know scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.draw import Draw

LONGEST = 128  # slots of a slate whose marginals are given: their cost grows with the third power


def draw(slots: int, pool: int, epsilon: float, uniforms: Sequence[tuple[float, float]]) -> Draw:
    """Draw `slots` ranks out of `pool`; each slot takes a block's two uniforms: a coin and a pick.

    Marginals are None for slates of more than `LONGEST` slots. Raises `ValueError` unless 0 <= slots <= pool and
    0 <= epsilon <= 1.
    """
    best, others, table = _chances(slots, pool, epsilon)
    left = list(range(pool))
    ranks, explored, conditional = [], [], []
    for slot in range(slots):
        coin, pick = uniforms[slot]
        at = int(pick * len(left)) if coin < epsilon else 0
        explored.append(coin < epsilon)
        conditional.append(others[slot] if at else best[slot])
        ranks.append(left.pop(at))
    if slots > LONGEST:
        return Draw(ranks, explored, conditional, [None] * slots)
    return Draw(
        ranks,
        explored,
        conditional,
        [row[min(rank, slots)] for row, rank in zip(table, ranks, strict=True)],
    )


@lru_cache(maxsize=64)
def _chances(
    slots: int, pool: int, epsilon: float
) -> tuple[list[float], list[float], list[list[float]]]:
    """Return for each slot the chance of the best item left, that of each other one, and the marginals by rank."""
    each = (epsilon,) * slots
    _check(slots, pool, each)
    others = [epsilon / (pool - slot) for slot in range(slots)]
    table = _marginals(slots, pool, each).tolist() if slots <= LONGEST else []
    return [other + (1.0 - epsilon) for other in others], others, table


def marginals(slots: int, pool: int, epsilon: float | tuple[float, ...]) -> NDArray[np.float64]:
    """Return float64 [slots, pool]: the exact probability that slot k shows the item of rank j. Rows sum to 1.

    `epsilon` is that of each slot, or one for all. Raises `ValueError` as `draw` does.
    """
    each = epsilon if isinstance(epsilon, tuple) else (epsilon,) * slots
    _check(slots, pool, each)
    return _marginals(slots, pool, each)[:, np.minimum(np.arange(pool), slots)]


@lru_cache(maxsize=64)
def _marginals(slots: int, pool: int, epsilons: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the marginals [slots, slots + 1] of the ranks 0 … slots - 1 and of any later one.

    Dynamic programming over u, the number of better-ranked items already taken, while the item itself is not: v = k - u
    worse-ranked ones are then taken. A later rank can only be reached by exploring, and has a closed form.
    """
    table, tail = np.empty((slots, slots + 1)), 1.0
    rank, better = np.arange(slots)[:, None], np.arange(slots + 1)
    taken = np.zeros((slots, slots + 1))
    taken[:, 0] = 1.0
    for slot, epsilon in enumerate(epsilons):
        left, u = pool - slot, better[: slot + 1]
        now = taken[:, : slot + 1]
        table[slot, :slots] = (now * (epsilon / left + (1.0 - epsilon) * (u == rank))).sum(axis=1)
        table[slot, slots] = tail * epsilon / left
        tail *= 1.0 - epsilon / left
        to_better = now * (epsilon / left * np.maximum(rank - u, 0) + (1.0 - epsilon) * (u < rank))
        now *= epsilon / left * np.maximum(pool - 1 - rank - (slot - u), 0)
        taken[:, 1 : slot + 2] += to_better
    table.flags.writeable = False
    return table


def _check(slots: int, pool: int, epsilons: tuple[float, ...]) -> None:
    if not 0 <= slots <= pool:
        raise ValueError(f"expected 0 <= slots <= pool, found slots {slots} and pool {pool}")
    if len(epsilons) != slots or not all(0.0 <= epsilon <= 1.0 for epsilon in epsilons):
        raise ValueError(
            f"expected an epsilon in [0, 1] for each of {slots} slots, found {epsilons}"
        )
