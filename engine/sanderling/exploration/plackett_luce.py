"""Scheme `softmax`: slates by Plackett and Luce, each slot a softmax of score / temperature over what remains.

Drawn at once by the Gumbel top-k trick (Kool, van Hoof and Welling 2019, arXiv:1903.06059): the K largest of
score / temperature - log(-log u), in order. Scores further than `REACH` temperatures below the best count as if they
were that far, so that no chance vanishes. A slot's marginal is a sum over all sets of items before it, without a closed
form: it is not given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.draw import Draw

REACH = 300.0
_SMALLEST = 2.0**-54  # stands for the uniform 0


def draw(
    slots: int,
    scores: NDArray[np.float64],
    temperature: float,
    uniforms: Sequence[tuple[float, float]],
) -> Draw:
    """Draw `slots` ranks for scores float64 [M], best first; the item of rank j takes the first number of block j."""
    if slots == 0:
        return Draw([], [], [], [])
    logits = np.maximum((scores - scores[0]) / temperature, -REACH)
    noise = np.maximum([pair[0] for pair in uniforms[: len(scores)]], _SMALLEST)
    order = np.argsort(np.log(-np.log(noise)) - logits, kind="stable")
    weights = np.exp(logits)[order]
    left = np.cumsum(weights[::-1])[
        ::-1
    ]  # small ones are added first: nothing is subtracted, nothing cancels
    ranks = order[:slots].tolist()
    return Draw(ranks, _explored(ranks), (weights[:slots] / left[:slots]).tolist(), [None] * slots)


def _explored(ranks: list[int]) -> list[bool]:
    """Return for each slot whether another item than the best one left was drawn."""
    best, taken, explored = 0, set(), []
    for rank in ranks:
        explored.append(rank != best)
        taken.add(rank)
        while best in taken:
            best += 1
    return explored
