"""How alike two rankings, two sets of vectors or two distributions are. Pure: refuses to know bundles and policies."""

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

    It is the cosine where the rows are equally long, and less where they are not: 1 only for equal rows.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = (a * a).sum(1) + (b * b).sum(1)
    return np.divide(2.0 * (a * b).sum(1), squares, out=np.ones(len(a)), where=squares != 0)


def spearman(a: Vectors, b: Vectors) -> float:
    """Return Spearman's rank correlation of the similarities of all pairs of rows of a and of b, each [n, t]."""
    upper = np.triu_indices(len(a), 1)
    ranks = [np.argsort(np.argsort((x @ x.T)[upper])) for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(upper[0]) > 1 else 1.0


def neighbours(a: Vectors, b: Vectors, k: int = 10) -> float:
    """Return the mean overlap of each row's k nearest other rows in a and in b, each [n, t]."""
    k = min(k, len(a) - 1)
    if k < 1:
        return 1.0
    near = []
    for x in (a, b):
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        near.append([best(row, k).tolist() for row in similarity])
    return overlap(near[0], near[1], k)


def best(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the places of the k highest scores [n], score descending, then place ascending; none that is -inf."""
    k = min(k, int(np.count_nonzero(scores > -np.inf)))
    if k == 0:
        return np.empty(0, np.int64)
    found = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    return found[np.lexsort((found, -scores[found]))[:k]]


def overlap(found: Sequence[Sequence[Any]], wanted: Sequence[Sequence[Any]], k: int) -> float:
    """Return the mean share of each wanted ranking's first k that is among the found one's first k."""
    shares = [
        len(set(a[:k]) & set(b[:k])) / min(k, len(b))
        for a, b in zip(found, wanted, strict=True)
        if len(b)
    ]
    return float(np.mean(shares)) if shares else 1.0


def total_variation(p: Mapping[Any, float], q: Mapping[Any, float]) -> float:
    """Return half the sum of |p - q| over all outcomes of two distributions: 0 for equal, 1 for disjoint ones."""
    return 0.5 * sum(abs(p.get(key, 0.0) - q.get(key, 0.0)) for key in p.keys() | q.keys())


def ndcg(
    rankings: Sequence[Sequence[Any]], relevant: Sequence[set[Any]], k: int
) -> NDArray[np.float64]:
    """Return each ranking's normalised discounted gain at k (Järvelin and Kekäläinen 2002); each has relevant items."""
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    gains = [
        sum(discount[place] for place, item in enumerate(ranking[:k]) if item in wanted)
        / discount[: len(wanted)].sum()
        for ranking, wanted in zip(rankings, relevant, strict=True)
    ]
    return np.array(gains)
