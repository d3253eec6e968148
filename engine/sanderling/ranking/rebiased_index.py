"""An exact index in which each query raises some rows by what counts beside their vectors."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.index import Int8Index
from sanderling.ranking.search_types import RowMask, Rows, SearchResult


class RebiasedIndex:
    """An index of the rows, scales and biases of another, with blocks of its own. Thread-safe."""

    def __init__(self, index: Int8Index) -> None:
        self.n = len(index.rows)
        self._index = Int8Index(index.rows, index.scale, index.bias.copy())
        self._lock = Lock()  # held while the biases are those of one query

    def top(
        self,
        query: NDArray[np.float32],
        k: int,
        raised: Rows,
        by: NDArray[np.float64],
        mask: RowMask | None,
    ) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d], where the biases of the distinct
        rows `raised`, int64 [m], are larger `by` float64 [m].

        Scores, ties and errors are those of `Int8Index.top`.
        """
        with self._lock:
            undo = self._index.raise_biases(raised, by.astype(np.float32))
            try:
                return self._index.top(query, k, None, mask)
            finally:
                undo()
