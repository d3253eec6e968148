"""The baselines that every policy must beat. Refuses to know text, time and exploration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

MOST_ITEMS = 20_000


class Popularity:
    """Scores an item by how often it was liked."""

    def fit(self, histories: Sequence[NDArray[np.int64]], items: int) -> Popularity:
        """Learn from each user's liked rows."""
        self.counts = np.bincount(
            np.concatenate([np.empty(0, np.int64), *histories]), minlength=items
        ).astype(np.float32)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return float32 [u, n], the same for everybody."""
        return np.tile(self.counts, (len(histories), 1))


class EASE:
    """The shallow linear autoencoder of Steck 2019 (arXiv:1905.03375, eq. 8): B = I - P diag(1 / diag P), P = G⁻¹."""

    def __init__(self, regularisation: float = 200.0) -> None:
        self.regularisation = regularisation

    def fit(self, histories: Sequence[NDArray[np.int64]], items: int) -> EASE:
        """Learn from each user's liked rows; raises `ValueError` above 20,000 items, whose Gram matrix is too large."""
        if items > MOST_ITEMS:
            raise ValueError(f"EASE: expected at most {MOST_ITEMS} items, found {items}")
        x = _matrix(histories, items)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices(items)] += self.regularisation
        lower, _ = lapack.dpotrf(gram, lower=True, overwrite_a=True)
        half, _ = lapack.dpotri(lower, lower=True, overwrite_c=True)
        inverse = np.tril(half) + np.tril(half, -1).T
        self.weights = (-inverse / np.diag(inverse)).astype(np.float32)
        np.fill_diagonal(self.weights, 0.0)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return float32 [u, n] for users with these liked rows."""
        return np.asarray(_matrix(histories, len(self.weights)).astype(np.float32) @ self.weights)


def _matrix(histories: Sequence[NDArray[np.int64]], items: int) -> sparse.csr_array:
    """Return float64 [u, n], 1 where a user had an item, however often."""
    rows = [np.unique(history) for history in histories]
    starts = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate([np.empty(0, np.int64), *rows])
    return sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(rows), items))
