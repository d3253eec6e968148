"""What an exact top-k search takes and returns, for all of its implementations."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import BLOCK_ROWS, ceil_div

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


class Int8Rows(Protocol):
    """Rows int8 [n, d] with a float32 scale and bias each, and the largest of both by magnitude."""

    rows: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    max_scale: float
    max_bias: float


class SearchResult(NamedTuple):
    """The best rows int64 [<= k] and their scores float64, out of `eligible` ones."""

    rows: Rows
    scores: Scores
    eligible: int


def merged(first: SearchResult, second: SearchResult, n: int, k: int) -> SearchResult:
    """Return the k best rows of two tables, those of the second numbered from n on."""
    rows = np.concatenate([first.rows, second.rows + n])
    scores = np.concatenate([first.scores, second.scores])
    order = np.lexsort((rows, -scores))[:k]
    return SearchResult(rows[order], scores[order], first.eligible + second.eligible)


class RowMask:
    """Rows of a table that a search leaves out, one bit each: made once, and used by many searches.

    `hidden` is the bool [n] that it was made of, `count` how many rows are hidden.
    """

    def __init__(self, hidden: NDArray[np.bool_]) -> None:
        self.hidden = hidden
        self.count = int(np.count_nonzero(hidden))

        # Whole 64-bit words, since the kernels read one for each block.
        self._words = np.zeros(ceil_div(len(hidden), BLOCK_ROWS) * BLOCK_ROWS // 8, np.uint8)
        bits = np.packbits(hidden, bitorder="little")
        self._words[: len(bits)] = bits
        self.address = address_of(self._words)


def address_of(array: NDArray[Any]) -> int:
    """Return the address of an array's first element; it is valid as long as the array lives."""
    return array.ctypes.data
