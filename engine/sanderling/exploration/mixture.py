"""Scheme `mixture`: one coin for each request.

With M items in the pool and K slots, the slate is the greedy one with probability 1 - ε, else any of the M!/(M - K)!
slates, each as likely:

    prefix_k = (1 - ε) 1[the first k are greedy] + ε (M - k)! / M!
    marginal_k(j) = (1 - ε) 1[j = k] + ε / M

Refuses to know scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from sanderling.exploration.draw import Draw


def draw(slots: int, pool: int, epsilon: float, uniforms: Sequence[tuple[float, float]]) -> Draw:
    """Draw `slots` <= `pool` ranks: the first block's first number is the coin, each block's second one a pick."""
    explores = slots > 0 and uniforms[0][0] < epsilon
    ranks = _any(pool, uniforms[:slots]) if explores else list(range(slots))
    conditional, before, random, so_far = [], 1.0, epsilon, True
    for slot, rank in enumerate(ranks):
        if not so_far:  # the coin is known to have fallen on exploring
            conditional.append(1.0 / (pool - slot))
            continue
        so_far, random = rank == slot, random / (pool - slot)
        now = random + (1.0 - epsilon) * so_far
        conditional.append(now / before)
        before = now
    marginal = [
        epsilon / pool + (1.0 - epsilon) * (rank == slot) for slot, rank in enumerate(ranks)
    ]
    return Draw(ranks, [explores] * slots, conditional, marginal)


def _any(pool: int, uniforms: Sequence[tuple[float, float]]) -> list[int]:
    left = list(range(pool))
    return [left.pop(int(pick * len(left))) for _, pick in uniforms]
