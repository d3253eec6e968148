"""Scheme `mixture`: one Bernoulli trial decides whether the whole slate explores.

With M items in the pool and K slots, the slate is the greedy one with probability 1 - ε, else any
of the M!/(M - K)! slates, each as likely:

    prefix_k = (1 - ε) 1[the first k are greedy] + ε (M - k)! / M!
    marginal_k(j) = (1 - ε) 1[j = k] + ε / M
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.draw import Draw


def draw(slots: int, pool: int, epsilon: float, uniforms: Sequence[tuple[float, float]]) -> Draw:
    """Draw `slots` <= `pool` ranks.

    The first number of the first block decides whether to explore; the second number of each block
    picks an item.
    """
    explores = slots > 0 and uniforms[0][0] < epsilon
    ranks = _random_slate(pool, uniforms[:slots]) if explores else list(range(slots))
    marginal = [
        epsilon / pool + (1.0 - epsilon) * (rank == slot) for slot, rank in enumerate(ranks)
    ]
    return Draw(ranks, [explores] * slots, _conditionals(ranks, pool, epsilon), marginal)


def marginals_by_rank(slots: int, pool: int, epsilon: float) -> NDArray[np.float64]:
    """Return float64 [slots, slots + 1]: the marginals of the ranks 0 … slots - 1 and of any later
    one."""
    return epsilon / pool + (1.0 - epsilon) * np.eye(slots, slots + 1)


def _conditionals(ranks: list[int], pool: int, epsilon: float) -> list[float]:
    """Return the probability of each rank given those before it."""
    conditional = []
    prefix = 1.0
    explored_prefix = epsilon  # the part of `prefix` that exploring contributes
    is_greedy = True
    for slot, rank in enumerate(ranks):
        # After the first rank that is not greedy the slate is known to explore. The ratio of
        # prefixes is the same, but underflows on long slates.
        if not is_greedy:
            conditional.append(1.0 / (pool - slot))
            continue
        is_greedy = rank == slot
        explored_prefix /= pool - slot
        longer = explored_prefix + (1.0 - epsilon) * is_greedy
        conditional.append(longer / prefix)
        prefix = longer
    return conditional


def _random_slate(pool: int, uniforms: Sequence[tuple[float, float]]) -> list[int]:
    remaining = list(range(pool))
    return [remaining.pop(int(pick * len(remaining))) for _, pick in uniforms]
