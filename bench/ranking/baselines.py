"""The baselines that the policy is compared with, each simple, correct, and cited.

All learn from a `Log` and answer `Queries` (`protocols.py`). Those that the product has too are its
own.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench.ranking.data import Log
from bench.ranking.protocols import Queries
from sanderling_trainer.evaluation import baselines as product

DAY = 86_400

Floats = NDArray[np.float32]


class Random:
    """Scores drawn uniformly for each user: the lower bound."""

    name = "random"

    def fit(self, train: Log, seed: int) -> Random:
        """Seed the draws."""
        self.rng = np.random.default_rng(seed)
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, n]."""
        return self.rng.random((len(queries), len(queries.texts)), dtype=np.float32)


class Popular:
    """How many events an item had in all, the same for all users (the product's own baseline)."""

    name = "popular"

    def fit(self, train: Log, seed: int) -> Popular:
        """Count."""
        self.model = product.Popularity().fit([train.item], len(train.texts))
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return self.model.scores(queries.items)


class RecentPopular:
    """How many events an item had in the `days` before the query (the product's own baseline)."""

    name = "recent popular"

    def __init__(self, days: float) -> None:
        self.model = product.RecentPopularity(days)

    def fit(self, train: Log, seed: int) -> RecentPopular:
        """Remember the events in the order of time."""
        self.model.fit(train.item, train.time, len(train.texts))
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        moments, which = np.unique(queries.now, return_inverse=True)
        return np.stack([self.model.counts(int(now)) for now in moments])[which]


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
    """The product's ItemKNN on binary interactions."""

    name = "ItemKNN"

    def __init__(self, neighbours: int, shrink: float) -> None:
        self.model = product.ItemKNN(neighbours, shrink)

    def fit(self, train: Log, seed: int) -> ItemKNN:
        """Compute and cut the similarities."""
        self.model.fit(_histories(train), len(train.texts))
        self.similar = self.model.similar
        return self

    def scores(self, queries: Queries) -> Floats:
        """Return float32 [u, m]."""
        return self.model.scores(queries.items)


class EASE:
    """The product's EASE (Steck 2019) on binary interactions."""

    name = "EASE"

    def __init__(self, regularization: float) -> None:
        self.model = product.EASE(regularization)

    def fit(self, train: Log, seed: int) -> EASE:
        """Solve the closed form."""
        self.model.fit(_histories(train), len(train.texts))
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
        return product.blend(self.personal.scores(queries), counts, self.weight, self.damped)


class IALS(product.IALS):
    """The product's iALS."""

    name = "iALS"

    def fit(self, train: Log, seed: int) -> IALS:  # type: ignore[override]
        """Alternate between users and items."""
        super().fit(_histories(train), len(train.texts), seed)
        return self

    def scores(self, queries: Queries) -> Floats:  # type: ignore[override]
        """Return float32 [u, m]."""
        return super().scores(queries.items)


def _histories(log: Log) -> list[NDArray[np.int64]]:
    order = np.argsort(log.user, kind="stable")
    return np.split(log.item[order], np.flatnonzero(np.diff(log.user[order])) + 1)


def _matrix(lists: Sequence[NDArray[np.int64]], items: int) -> sparse.csr_array:
    """Return how often each row is in each list, float32 [u, n]."""
    starts = np.cumsum([0, *(len(rows) for rows in lists)])
    columns = np.concatenate([np.empty(0, np.int64), *lists])
    found = sparse.csr_array(
        (np.ones(len(columns), np.float32), columns, starts), shape=(len(lists), items)
    )
    found.sum_duplicates()
    return found


def _unit(x: sparse.csr_array) -> sparse.csr_array:
    norm = np.sqrt(np.asarray((x * x).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(norm, 1e-12)) @ x)
