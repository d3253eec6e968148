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


# Off-policy estimation


def naive_estimates(clicks: Any, judged: Any, logged: Any, target: Any) -> dict[str, float]:
    """Return the estimators by looping over decisions and slots."""
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in ("SIPS", "RIPS", "IIPS", "inclusion")}
    count = 0
    for i, row in enumerate(clicks.tolist()):
        whole = 1.0
        for slot in range(len(row)):
            whole *= float(target.conditional[i, slot]) / float(logged.conditional[i, slot])
        prefix = 1.0
        for slot, click in enumerate(row):
            prefix *= float(target.conditional[i, slot]) / float(logged.conditional[i, slot])
            if not judged[i, slot]:
                continue
            count += 1
            weights = {
                "SIPS": whole,
                "RIPS": prefix,
                "IIPS": float(target.marginal[i, slot]) / float(logged.marginal[i, slot]),
                "inclusion": float(target.inclusion[i, slot]) / float(logged.inclusion[i, slot]),
            }
            for name, weight in weights.items():
                sums[name][0] += weight * click
                sums[name][1] += weight
    plain = {name: clicked / count for name, (clicked, _) in sums.items()}
    normal = {f"SN-{name}": clicked / all_ if all_ else float("nan") for name, (clicked, all_) in sums.items()}
    return {**plain, **normal}


# Ranking metrics


def naive_ndcg(slate: Any, relevant: set[Any], k: int) -> float:
    """Return the normalised discounted gain by its definition."""
    import math

    gain = sum((item in relevant) / math.log2(place + 1) for place, item in enumerate(slate, 1))
    ideal = sum((place <= len(relevant)) / math.log2(place + 1) for place in range(1, k + 1))
    return gain / ideal
