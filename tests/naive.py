"""The slow twins: each is its definition, written as loops, with nothing shared with what it checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

# Exploration


def slates(slots: int, pool: int) -> Iterator[tuple[int, ...]]:
    """Yield every ordered slate of distinct ranks."""
    return itertools.permutations(range(pool), slots)


def joint(slate: tuple[int, ...], pool: int, epsilon: float) -> float:
    """Return the probability of a slate under scheme `sequential`, straight from its definition."""
    chance, left = 1.0, list(range(pool))
    for rank in slate:
        chance *= (1.0 - epsilon) * (rank == min(left)) + epsilon / len(left)
        left.remove(rank)
    return chance


# Top-k


def naive_top(
    rows: Any, scale: Any, bias: Any, codes: Any, step: float, k: int, excluded: Any
) -> tuple[list[int], list[float]]:
    """Return the rows and scores of the k best by sorting all of them, in Python's exact integers."""
    scored = []
    for row, values in enumerate(rows.tolist()):
        if not excluded[row]:
            dot = sum(int(a) * int(b) for a, b in zip(values, codes.tolist(), strict=True))
            scored.append((-((float(dot) * float(scale[row])) * step + float(bias[row])), row))
    scored.sort()
    return [row for _, row in scored[:k]], [-score for score, _ in scored[:k]]
