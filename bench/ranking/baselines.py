"""The baselines that the policy is compared with, each simple, correct, and cited.

All learn from a `Log` and answer `Queries` (`protocols.py`). An interaction is binary unless stated
otherwise: x_ui = 1 if user u has had item i.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench.ranking.data import Log
from bench.ranking.protocols import Queries
from sanderling_trainer.evaluation import baselines as product

DAY = 86_400

Floats = NDArray[np.float32]


class Random:
    """Scores drawn uniformly anew for every user: the floor."""

    name = "random"

    def fit(self, train: Log, seed: int) -> Random:
        """Seed the draws."""
        self.rng = np.random.default_rng(seed)
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, n]."""
        return self.rng.random((len(queries), len(queries.texts)), dtype=np.float32)


class Popular:
    """How many events an item had in all, the same for everybody (the product's own baseline)."""

    name = "popular"

    def fit(self, train: Log, seed: int) -> Popular:
        """Count."""
        self.model = product.Popularity().fit([train.item], len(train.texts))
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return self.model.scores(queries.items)


class RecentPopular:
    """How many events an item had in the `days` before the query (Ji et al. 2020)."""

    name = "recent popular"

    def __init__(self, days: float) -> None:
        self.days = days

    def fit(self, train: Log, seed: int) -> RecentPopular:
        """Remember the events in the order of time."""
        self.train = train
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        moments, which = np.unique(queries.now, return_inverse=True)
        return np.stack([self._counts(int(now)) for now in moments])[which]

    def _counts(self, now: int) -> Floats:
        start, stop = np.searchsorted(self.train.time, [now - self.days * DAY, now], side="left")
        return np.bincount(self.train.item[start:stop], minlength=len(self.train.texts)).astype(
            np.float32
        )


class Content:
    """Cosine of an item's TF-IDF vector to the mean of those the user had (Salton
    and Buckley 1988).

    tf = 1 + log count, idf = 1 + log((1 + n) / (1 + df)) over the texts known to `fit`; terms are
    words, words and pairs of words, or character trigrams. New items can be scored.
    """

    name = "TF-IDF content"

    def __init__(self, terms: str, last: int) -> None:
        self.terms, self.last = terms, last

    def fit(self, train: Log, seed: int) -> Content:
        """Count the documents of each term."""
        found = [self._terms(text) for text in train.texts]
        frequency = Counter(term for terms in found for term in set(terms))
        self.columns = {term: at for at, term in enumerate(sorted(frequency))}
        counts = np.array([frequency[term] for term in self.columns], np.float64)
        self.idf = 1.0 + np.log((1.0 + len(found)) / (1.0 + counts))
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, n]; the profile is the mean over the last `last` events."""
        vectors = self._vectors(queries.texts)
        profiles = (
            _matrix([rows[-self.last :] for rows in queries.items], len(queries.texts)) @ vectors
        )
        return np.asarray((_unit(profiles) @ vectors.T).toarray(), np.float32)

    def _vectors(self, texts: Sequence[str]) -> sparse.csr_array:
        entries = [
            (row, self.columns[term], 1.0 + np.log(count))
            for row, text in enumerate(texts)
            for term, count in Counter(self._terms(text)).items()
            if term in self.columns
        ]
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        shape = (len(texts), len(self.columns))
        return _unit(
            sparse.csr_array((np.array(values, float), (rows, columns)), shape=shape) * self.idf
        )

    def _terms(self, text: str) -> list[str]:
        words = re.findall(r"\w+", text.lower())
        if self.terms == "trigrams":
            padded = f" {' '.join(words)} "
            return [padded[at : at + 3] for at in range(len(padded) - 2)]
        pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
        return words + pairs if self.terms == "words and pairs" else words


class ItemKNN:
    """Sums an item's cosines to the items had (Sarwar et al. 2001), shrunk (Bell and Koren 2007).

    s_ij = x_i·x_j / (|x_i| |x_j| + shrink); of each item's similarities the
    `neighbours` largest are kept.
    """

    name = "ItemKNN"

    def __init__(self, neighbours: int, shrink: float) -> None:
        self.neighbours, self.shrink = neighbours, shrink

    def fit(self, train: Log, seed: int) -> ItemKNN:
        """Compute and cut the similarities."""
        x = _interactions(train)
        common = sparse.csr_array(x.T @ x)
        norm = np.sqrt(np.asarray(x.sum(axis=0)).ravel())
        parts = []
        for row, (start, stop) in enumerate(itertools.pairwise(common.indptr)):
            column = common.indices[start:stop]
            value = common.data[start:stop] / (norm[row] * norm[column] + self.shrink)
            value[column == row] = 0.0
            best = np.argpartition(-value, min(self.neighbours, len(value)) - 1)[: self.neighbours]
            parts.append((column[best], np.full(len(best), row), value[best]))
        had, scored, value = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.similar = sparse.csr_array((value, (had, scored)), shape=common.shape)
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return np.asarray(
            (_had(queries, self.similar.shape[0]) @ self.similar).toarray(), np.float32
        )


class EASE:
    """The product's EASE (Steck 2019) on binary interactions."""

    name = "EASE"

    def __init__(self, regularization: float) -> None:
        self.regularization = regularization

    def fit(self, train: Log, seed: int) -> EASE:
        """Solve the closed form."""
        histories = np.split(*_by_user(train))
        self.model = product.EASE(self.regularization).fit(histories, len(train.texts))
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return self.model.scores(queries.items)


class Blend:
    """EASE and recent popularity, each as a z-score over the known items, the
    latter times `weight`.

    `damped` takes log(1 + count) for the count first.
    """

    name = "EASE + recent popular"

    def __init__(
        self, regularization: float, days: float, weight: float, damped: bool = False
    ) -> None:
        self.personal = EASE(regularization)
        self.recent = RecentPopular(days)
        self.weight = weight
        self.damped = damped

    def fit(self, train: Log, seed: int) -> Blend:
        """Fit both."""
        self.personal.fit(train, seed)
        self.recent.fit(train, seed)
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        counts = self.recent.scores(queries)
        popularity = np.log1p(counts) if self.damped else counts
        return _standard(self.personal.scores(queries)) + np.float32(self.weight) * _standard(
            popularity
        )


class IALS:
    """Matrix factors for implicit feedback by alternating least squares.

    Minimizes Σ_{(u,i) in S} (1 - w_u·h_i)² + α Σ_{u,i} (w_u·h_i)² + λ Σ_u (|S_u| + α n)^ν |w_u|²,
    and so for h (Hu et al. 2008; as parametrized by Rendle et al. 2022, "Revisiting the performance
    of iALS on item recommendation benchmarks", eq. 3 to 5). A user's vector is solved from what was
    had when the question is put.
    """

    name = "iALS"
    sweeps = 10
    frequency = 1.0

    def __init__(self, factors: int, alpha: float, regularization: float) -> None:
        self.factors, self.alpha, self.regularization = factors, alpha, regularization

    def fit(self, train: Log, seed: int) -> IALS:
        """Alternate between users and items."""
        x = _interactions(train)
        rng = np.random.default_rng(seed)
        self.items = (
            0.1 / np.sqrt(self.factors) * rng.standard_normal((x.shape[1], self.factors))
        ).astype(np.float32)
        rows, columns = _lists(x), _lists(sparse.csr_array(x.T))
        for _ in range(self.sweeps):
            users = self.solve(rows, self.items)
            self.items = self.solve(columns, users)
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return self.solve([np.unique(rows) for rows in queries.items], self.items) @ self.items.T

    def solve(self, lists: Sequence[NDArray[Any]], other: Floats) -> Floats:
        """Return each side's vectors float32 [a, d] that minimize the loss for the other side's
        [b, d], held fast.
        """
        everywhere = self.alpha * (other.T @ other)
        found = np.zeros((len(lists), self.factors), np.float32)
        for at, rows in enumerate(lists):
            mine = other[rows]
            ridge = self.regularization * (len(rows) + self.alpha * len(other)) ** self.frequency
            system = everywhere + mine.T @ mine
            system[np.diag_indices(self.factors)] += ridge
            found[at] = np.linalg.solve(system, mine.sum(axis=0))
        return found


def _by_user(log: Log) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(log.user, kind="stable")
    return log.item[order], np.flatnonzero(np.diff(log.user[order])) + 1


def _interactions(log: Log) -> sparse.csr_array:
    pairs = np.unique(np.stack([log.user, log.item]), axis=1)
    shape = (int(log.user.max(initial=-1)) + 1, len(log.texts))
    return sparse.csr_array((np.ones(pairs.shape[1], np.float32), tuple(pairs)), shape=shape)


def _had(queries: Queries, items: int) -> sparse.csr_array:
    return _matrix([np.unique(rows) for rows in queries.items], items)


def _matrix(lists: Sequence[NDArray[np.int64]], items: int) -> sparse.csr_array:
    """Return how often each row is in each list, float32 [u, n]."""
    starts = np.cumsum([0, *(len(rows) for rows in lists)])
    columns = np.concatenate([np.empty(0, np.int64), *lists])
    found = sparse.csr_array(
        (np.ones(len(columns), np.float32), columns, starts), shape=(len(lists), items)
    )
    found.sum_duplicates()
    return found


def _lists(x: sparse.csr_array) -> list[NDArray[Any]]:
    return np.split(x.indices, x.indptr[1:-1])


def _unit(x: sparse.csr_array) -> sparse.csr_array:
    norm = np.sqrt(np.asarray((x * x).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(norm, 1e-12)) @ x)


def _standard(scores: Floats) -> Floats:
    spread = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12)
