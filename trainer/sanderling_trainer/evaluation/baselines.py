"""The baselines that every policy must beat, from likes alone: simple, correct, and cited.

A user's likes are binary: x_ui = 1 if user u liked item i, however often. `histories` are each
user's liked rows, int64, with repeats; `items` is n, the size of the catalog.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

DAY = 86_400  # seconds
EASE_MAX_ITEMS = 20_000
"""EASE inverts an n x n matrix: 3.2 GB in float64 at this many items."""

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


class Popularity:
    """Scores an item by how often it was liked."""

    def fit(self, histories: Sequence[Rows], items: int) -> Popularity:
        """Count the likes in each user's liked rows."""
        rows = np.concatenate([np.empty(0, np.int64), *histories])
        self.counts = np.bincount(rows, minlength=items).astype(np.float32)
        return self

    def scores(self, histories: Sequence[Rows]) -> Floats:
        """Return float32 [u, n], the same row for every user."""
        return np.tile(self.counts, (len(histories), 1))


class RecentPopularity:
    """Scores an item by its likes in the `days` before a moment (Ji et al. 2020)."""

    def __init__(self, days: float) -> None:
        self.days = days

    def fit(self, item: Rows, time: Rows, items: int) -> RecentPopularity:
        """Remember the likes: rows int64 [e] and seconds int64 [e], in order of time."""
        self._item = item
        self._time = time
        self._items = items
        return self

    def counts(self, moment: int) -> Floats:
        """Return float32 [n], the likes in the days before a moment (seconds), without it."""
        start, stop = np.searchsorted(self._time, [moment - self.days * DAY, moment], side="left")
        return np.bincount(self._item[start:stop], minlength=self._items).astype(np.float32)


class ItemKNN:
    """Sums an item's cosines to the items liked (Sarwar et al. 2001), shrunk (Bell and Koren 2007).

    s_ij = x_i·x_j / (|x_i| |x_j| + shrink); of each item's similarities the
    `neighbours` largest are kept.
    """

    def __init__(self, neighbours: int, shrink: float) -> None:
        self.neighbours = neighbours
        self.shrink = shrink

    def fit(self, histories: Sequence[Rows], items: int) -> ItemKNN:
        """Compute and cut the similarities."""
        x = interaction_matrix(histories, items).astype(np.float32)
        common = sparse.csr_array(x.T @ x)
        norm = np.sqrt(np.asarray(x.sum(axis=0)).ravel())

        parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        for row, (start, stop) in enumerate(itertools.pairwise(common.indptr)):
            if start == stop:
                continue
            column = common.indices[start:stop]
            value = common.data[start:stop] / (norm[row] * norm[column] + self.shrink)
            value[column == row] = 0.0
            best = np.argpartition(-value, min(self.neighbours, len(value)) - 1)[: self.neighbours]
            parts.append((column[best], np.full(len(best), row), value[best]))
        liked, scored, value = (np.concatenate(part) for part in zip(*parts, strict=True))

        self.similar = sparse.csr_array((value, (liked, scored)), shape=common.shape)
        return self

    def scores(self, histories: Sequence[Rows]) -> Floats:
        """Return float32 [u, n] for users with these liked rows."""
        x = interaction_matrix(histories, self.similar.shape[0])
        return np.asarray((x @ self.similar).toarray(), np.float32)


class EASE:
    """A shallow linear autoencoder in closed form: B = I - P diag(1 / diag P), P = (XᵀX + λI)⁻¹.

    Source: Steck 2019 (arXiv:1905.03375), equation 8.
    """

    def __init__(self, regularization: float = 200.0) -> None:
        self.regularization = regularization

    def fit(self, histories: Sequence[Rows], items: int) -> EASE:
        """Fit to each user's liked rows.

        Raises:
            ValueError: more than `EASE_MAX_ITEMS` items.
        """
        if items > EASE_MAX_ITEMS:
            raise ValueError(
                f"EASE: expected at most {EASE_MAX_ITEMS} items, found {items}: its item-item"
                " matrix would not fit in memory"
            )
        x = interaction_matrix(histories, items)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices(items)] += self.regularization

        # LAPACK's Cholesky inverse works in place; numpy's general inverse needs twice the memory.
        factor, _ = lapack.dpotrf(gram, lower=True, overwrite_a=True)
        lower_half, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
        inverse = np.tril(lower_half) + np.tril(lower_half, -1).T

        self.weights = (-inverse / np.diag(inverse)).astype(np.float32)
        np.fill_diagonal(self.weights, 0.0)
        return self

    def scores(self, histories: Sequence[Rows]) -> Floats:
        """Return float32 [u, n] for users with these liked rows."""
        x = interaction_matrix(histories, len(self.weights)).astype(np.float32)
        return np.asarray(x @ self.weights)


class IALS:
    """Matrix factors for implicit feedback by alternating least squares.

    Minimizes Σ_{(u,i) in S} (1 - w_u·h_i)² + α Σ_{u,i} (w_u·h_i)² + λ Σ_u (|S_u| + α n)^ν |w_u|²,
    and so for h (Hu et al. 2008; as parametrized by Rendle et al. 2022, "Revisiting the performance
    of iALS on item recommendation benchmarks", eq. 3 to 5). A user's vector is solved from the
    likes that are given when scores are asked for.
    """

    sweeps = 10
    frequency = 1.0  # ν

    def __init__(self, factors: int, alpha: float, regularization: float) -> None:
        self.factors = factors
        self.alpha = alpha
        self.regularization = regularization

    def fit(self, histories: Sequence[Rows], items: int, seed: int = 0) -> IALS:
        """Alternate between users and items."""
        x = interaction_matrix(histories, items)
        rng = np.random.default_rng(seed)
        start = rng.standard_normal((items, self.factors)) * 0.1 / np.sqrt(self.factors)
        self.items = start.astype(np.float32)

        users_rows = _lists(x)
        items_rows = _lists(sparse.csr_array(x.T))
        for _ in range(self.sweeps):
            users = self.solve(users_rows, self.items)
            self.items = self.solve(items_rows, users)
        return self

    def scores(self, histories: Sequence[Rows]) -> Floats:
        """Return float32 [u, n] for users with these liked rows."""
        return self.solve([np.unique(rows) for rows in histories], self.items) @ self.items.T

    def solve(self, lists: Sequence[Rows], other: Floats) -> Floats:
        """Return each side's vectors float32 [a, d] that minimize the loss for the other side's
        [b, d], held fast.
        """
        everywhere = self.alpha * (other.T @ other)
        found = np.zeros((len(lists), self.factors), np.float32)
        padded = np.vstack([other, np.zeros((1, self.factors), np.float32)])

        # Lists of similar length together: one batched product and solve for each group.
        lengths = np.array([len(rows) for rows in lists], np.int64)
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            fits = lengths[order[start:]] * np.arange(1, len(order) - start + 1) <= 2**15
            group = order[start : start + min(1024, max(1, int(fits.sum())))]
            start += len(group)

            rows = np.full((len(group), max(1, int(lengths[group].max()))), len(other))
            for place, index in enumerate(group):
                rows[place, : lengths[index]] = lists[index]
            mine = padded[rows]
            ridge = self.regularization * (lengths[group] + self.alpha * len(other)) ** (
                self.frequency
            )
            system = everywhere + mine.transpose(0, 2, 1) @ mine
            system[:, np.arange(self.factors), np.arange(self.factors)] += ridge[:, None]
            found[group] = np.linalg.solve(system, mine.sum(axis=1)[:, :, None])[:, :, 0]
        return found


def blend(personal: Floats, counts: Floats, weight: float, damped: bool = False) -> Floats:
    """Return personal scores [u, n] plus `weight` times popularity, each as a z-score over items.

    counts: float32 [n] or [u, n]; `damped` takes log(1 + count) first.
    """
    popularity = np.log1p(counts) if damped else counts
    return standardized(personal) + np.float32(weight) * standardized(np.atleast_2d(popularity))


def standardized(scores: Floats) -> Floats:
    """Return scores [u, n] less their mean, over their standard deviation, row by row."""
    spread = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12)


def interaction_matrix(histories: Sequence[Rows], items: int) -> sparse.csr_array:
    """Return float64 [u, n], 1 where a user liked an item, however often."""
    rows = [np.unique(history) for history in histories]
    row_starts = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate([np.empty(0, np.int64), *rows])
    values = np.ones(len(columns))
    return sparse.csr_array((values, columns, row_starts), shape=(len(rows), items))


def _lists(x: sparse.csr_array) -> list[Rows]:
    return np.split(x.indices, x.indptr[1:-1])
