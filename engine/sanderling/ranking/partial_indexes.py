"""Partial indexes: of just the rows that a mask leaves, for masks that are searched often.

A scan of all rows takes as long however few of them a rule leaves; that of a partial index goes
with its own rows. Results are those of the whole index bit for bit: the rows keep their order.
"""

from __future__ import annotations

from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.index import Int8Index
from sanderling.ranking.search_types import RowMask, Rows, SearchResult

CACHED_BYTES = 16_000_000  # of the partial indexes of one catalog
MIN_ROWS = 16_384  # of the whole index: a smaller one is scanned as fast as rows are translated
MIN_HIDDEN = 0.75  # the share of rows that a mask has to hide
SCANS_PER_PACK = 256  # rows that are scanned in the time in which one is packed


class PartialIndexes:
    """Exact search of one index under masks. Thread-safe."""

    def __init__(self, index: Int8Index) -> None:
        self._index = index
        self._partial: dict[RowMask, _PartialIndex] = {}  # the oldest first
        self._searches: WeakKeyDictionary[RowMask, int] = WeakKeyDictionary()
        self._making = Lock()

    def top(
        self, query: NDArray[np.float32], k: int, excluded: Rows, mask: RowMask | None
    ) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d], as `Int8Index.top` does."""
        partial = None if mask is None else self._partial.get(mask) or self._make(mask)
        if partial is None:
            return self._index.top(query, k, excluded, mask)
        return partial.top(query, k, excluded)

    def _make(self, mask: RowMask) -> _PartialIndex | None:
        """Return the partial index of a mask that was searched so often that packing it pays."""
        rows = len(mask.hidden)
        left = rows - mask.count
        size = left * _bytes_per_row(self._index)
        if rows < MIN_ROWS or mask.count < MIN_HIDDEN * rows or size > CACHED_BYTES:
            return None
        # No search waits while another thread packs: it scans all rows instead.
        if not self._making.acquire(blocking=False):
            return None
        try:
            searches = self._searches[mask] = self._searches.get(mask, 0) + 1
            if searches * mask.count < SCANS_PER_PACK * left:
                return None
            while (
                self._partial and size + sum(p.size for p in self._partial.values()) > CACHED_BYTES
            ):
                del self._partial[next(iter(self._partial))]
            self._partial[mask] = _PartialIndex(self._index, mask, size)
            del self._searches[mask]
            return self._partial[mask]
        finally:
            self._making.release()


class _PartialIndex:
    """The index of the rows that a mask leaves; `size` is how many bytes it takes."""

    def __init__(self, index: Int8Index, mask: RowMask, size: int) -> None:
        self.size = size
        self._hidden = mask.hidden
        self._rows = np.flatnonzero(~mask.hidden)
        self._index = Int8Index(
            index.rows[self._rows], index.scale[self._rows], index.bias[self._rows]
        )

    def top(self, query: NDArray[np.float32], k: int, excluded: Rows) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d], without the excluded rows."""
        # Most of what is excluded is hidden as well. Rows that do not exist count as the nearest
        # one here, and drop out below.
        left = excluded[~self._hidden.take(excluded, mode="clip")]
        places = self._rows.searchsorted(left)
        places = places[self._rows.take(places, mode="clip") == left]
        best = self._index.top(query, k, places)
        return SearchResult(self._rows[best.rows], best.scores, best.eligible)


def _bytes_per_row(index: Int8Index) -> int:
    """Return what a row of a partial index takes: itself and its block, 29 bytes of numbers."""
    return 2 * index.rows.shape[1] + 29
