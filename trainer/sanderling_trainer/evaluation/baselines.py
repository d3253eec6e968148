"""The baselines that every policy must beat: popularity and EASE, from likes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

EASE_MAX_ITEMS = 20_000
"""EASE inverts an n x n matrix: 3.2 GB in float64 at this many items."""


class Popularity:
    """Scores an item by how often it was liked."""

    def fit(self, histories: Sequence[NDArray[np.int64]], items: int) -> Popularity:
        """Count the likes in each user's liked rows; `items` is the size of the catalog."""
        rows = np.concatenate([np.empty(0, np.int64), *histories])
        self.counts = np.bincount(rows, minlength=items).astype(np.float32)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return float32 [u, n], the same row for every user."""
        return np.tile(self.counts, (len(histories), 1))


class EASE:
    """A shallow linear autoencoder in closed form: B = I - P diag(1 / diag P), P = (XᵀX + λI)⁻¹.

    Source: Steck 2019 (arXiv:1905.03375), equation 8.
    """

    def __init__(self, regularization: float = 200.0) -> None:
        self.regularization = regularization

    def fit(self, histories: Sequence[NDArray[np.int64]], items: int) -> EASE:
        """Fit to each user's liked rows; `items` is the size of the catalog.

        Raises:
            ValueError: more than `EASE_MAX_ITEMS` items.
        """
        if items > EASE_MAX_ITEMS:
            raise ValueError(
                f"EASE: expected at most {EASE_MAX_ITEMS} items, found {items}: its item-item"
                " matrix would not fit in memory"
            )
        x = _interaction_matrix(histories, items)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices(items)] += self.regularization

        # LAPACK's Cholesky inverse works in place; numpy's general inverse needs twice the memory.
        factor, _ = lapack.dpotrf(gram, lower=True, overwrite_a=True)
        lower_half, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
        inverse = np.tril(lower_half) + np.tril(lower_half, -1).T

        self.weights = (-inverse / np.diag(inverse)).astype(np.float32)
        np.fill_diagonal(self.weights, 0.0)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return float32 [u, n] for users with these liked rows."""
        x = _interaction_matrix(histories, len(self.weights)).astype(np.float32)
        return np.asarray(x @ self.weights)


def _interaction_matrix(histories: Sequence[NDArray[np.int64]], items: int) -> sparse.csr_array:
    """Return float64 [u, n], 1 where a user liked an item, however often."""
    rows = [np.unique(history) for history in histories]
    row_starts = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.concatenate([np.empty(0, np.int64), *rows])
    values = np.ones(len(columns))
    return sparse.csr_array((values, columns, row_starts), shape=(len(rows), items))
