"""Scheme `softmax`: each slot is a softmax of score / temperature over what remains.

Such slates follow the Plackett-Luce model; they are drawn at once by the Gumbel top-k trick (Kool,
van Hoof and Welling 2019, arXiv:1903.06059): the K largest of score / temperature - log(-log u), in
order. A slot's marginal is a sum over all sets of items before it, without a closed form, and is
not returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.draw import Draw

# Temperatures below the best score; lower scores count as this far, so that no probability
# vanishes.
MAX_DISTANCE = 300.0
_SMALLEST = 2.0**-54  # stands for the uniform 0, whose logarithm is not finite


def draw(
    slots: int,
    scores: NDArray[np.float64],
    temperature: float,
    uniforms: Sequence[tuple[float, float]],
) -> Draw:
    """Draw `slots` ranks for scores float64 [M], best first; rank j takes uniforms[j][0]."""
    if slots == 0:
        return Draw([], [], [], [])
    logits = np.maximum((scores - scores[0]) / temperature, -MAX_DISTANCE)
    noise = np.maximum([pair[0] for pair in uniforms[: len(scores)]], _SMALLEST)
    order = np.argsort(np.log(-np.log(noise)) - logits, kind="stable")
    weights = np.exp(logits)[order]
    # Summed from the end, rather than subtracted from the total, so that nothing cancels.
    remaining = np.cumsum(weights[::-1])[::-1]
    conditional = (weights[:slots] / remaining[:slots]).tolist()
    ranks = order[:slots].tolist()
    return Draw(ranks, _explored(ranks), conditional, [None] * slots)


def _explored(ranks: list[int]) -> list[bool]:
    """Return for each slot whether it drew another item than the best one left."""
    explored = []
    taken = set()
    best = 0
    for rank in ranks:
        explored.append(rank != best)
        taken.add(rank)
        while best in taken:
            best += 1
    return explored
