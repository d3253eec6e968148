"""An exact index whose biases are given with each query: what else counts beside the vectors."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.index import Int8Index
from sanderling.ranking.search_types import RowMask, SearchResult


class RebiasedIndex:
    """An index of int8 rows as `Int8Index`, whose blocks are its own. Thread-safe."""

    def __init__(self, rows: NDArray[np.int8], scale: NDArray[np.float32]) -> None:
        self._index = Int8Index(rows, scale, np.zeros(len(rows), np.float32))
        self._lock = Lock()  # held while the biases are those of one query

    def top(
        self, query: NDArray[np.float32], bias: NDArray[np.float32], k: int, mask: RowMask | None
    ) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d] and biases float32 [n].

        Scores, ties and errors are those of `Int8Index.top`.
        """
        with self._lock:
            self._index.set_biases(bias)
            return self._index.top(query, k, None, mask)
