"""How similar two rankings, two sets of vectors or two distributions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[Any]


def cosine(a: Vectors, b: Vectors) -> float:
    """Return the mean cosine of the rows of a and of b, each [n, t]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(norms, 1e-12)))


def agreement(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return 2 a·b / (a·a + b·b) in [-1, 1] for each row of a and of b, float64 [n].

    It is the cosine where the rows are equally long, and less where they are not: 1 only for equal
    rows.
    """
    a = a.astype(np.float64)
    b = b.astype(np.float64)
    squares = (a * a).sum(1) + (b * b).sum(1)
    return np.divide(2.0 * (a * b).sum(1), squares, out=np.ones(len(a)), where=squares != 0)


def spearman(a: Vectors, b: Vectors) -> float:
    """Return Spearman's rank correlation of all pairs' similarities in a and in b, each [n, t]."""
    upper = np.triu_indices(len(a), 1)
    if len(upper[0]) <= 1:
        return 1.0
    ranks = [np.argsort(np.argsort((x @ x.T)[upper])) for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def neighbour_overlap(a: Vectors, b: Vectors, k: int = 10) -> float:
    """Return the mean overlap of each row's k nearest other rows in a and in b, each [n, t]."""
    k = min(k, len(a) - 1)
    if k < 1:
        return 1.0
    nearest = []
    for x in (a, b):
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append([top_k(row, k).tolist() for row in similarity])
    return overlap(nearest[0], nearest[1], k)


def top_k(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the indices of the k highest scores [n] above -inf, best first, ties by index."""
    k = min(k, int(np.count_nonzero(scores > -np.inf)))
    if k == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    return candidates[np.lexsort((candidates, -scores[candidates]))[:k]]


def overlap(rankings: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]], k: int) -> float:
    """Return the mean share of each expected ranking's first k among the first k of the other."""
    shares = [
        len(set(ranking[:k]) & set(wanted[:k])) / min(k, len(wanted))
        for ranking, wanted in zip(rankings, expected, strict=True)
        if len(wanted)
    ]
    return float(np.mean(shares)) if shares else 1.0


def total_variation(p: Mapping[Any, float], q: Mapping[Any, float]) -> float:
    """Return half the sum of |p - q| over all outcomes: 0 for equal, 1 for disjoint p and q."""
    return 0.5 * sum(abs(p.get(key, 0.0) - q.get(key, 0.0)) for key in p.keys() | q.keys())


def ndcg(
    rankings: Sequence[Sequence[Any]], relevant: Sequence[set[Any]], k: int
) -> NDArray[np.float64]:
    """Return each ranking's nDCG at k (Järvelin and Kekäläinen 2002); each has relevant items."""
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    gains = [
        sum(discount[place] for place, item in enumerate(ranking[:k]) if item in wanted)
        / discount[: len(wanted)].sum()
        for ranking, wanted in zip(rankings, relevant, strict=True)
    ]
    return np.array(gains)
