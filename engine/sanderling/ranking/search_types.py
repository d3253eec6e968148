"""What a search takes and returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import (
    ROWS,
)

Rows = NDArray[np.int64]


Scores = NDArray[np.float64]


class SearchResult(NamedTuple):
    """The best rows int64 [<= k] and their scores float64, best first, and how many rows were eligible."""

    rows: Rows
    scores: Scores
    eligible: int


class RowMask:
    """Rows of a table that are not to be found, one bit each: made once, and used by many searches."""

    def __init__(self, hidden: NDArray[np.bool_]) -> None:
        self.rows, self.count = hidden, int(np.count_nonzero(hidden))
        words = np.zeros(-(-len(hidden) // ROWS) * ROWS // 8, np.uint8)
        bits = np.packbits(hidden, bitorder="little")
        words[: len(bits)] = bits
        self._words, self.at = words, _at(words)


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
