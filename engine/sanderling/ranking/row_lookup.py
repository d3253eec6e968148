"""Finds the rows of item ids in one catalog, and keeps what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice, repeat

import numpy as np

from sanderling.bundle.reader import Bundle
from sanderling.ranking.search_types import Rows

CACHED_ROWS = 65536  # ids whose rows are kept
CACHED_LISTS = 128  # lists of ids whose rows are kept
MAX_CACHED = 500  # ids of such a list, so that all take 5 MB at most
UNKNOWN = -1  # the row of an id that is in neither the bundle nor the overlay
NOT_LOOKED_UP = -2


class RowLookup:
    """The rows of a bundle's items and of added ones. Thread-safe: each entry is written once."""

    def __init__(self, bundle: Bundle, added: Mapping[str, int]) -> None:
        self._bundle = bundle
        self._added = added
        self._rows: dict[str, int] = {}
        # Apps exclude the same items in call after call. A list that is found as a whole takes a
        # few µs; 200 ids one by one take the time of 600 misses of the processor's cache.
        self._of_list = lru_cache(maxsize=CACHED_LISTS)(
            partial(_rows_of, bundle, added, self._rows)
        )

    def find(self, item: str) -> int | None:
        """Return the row of an id, or None: it is unknown."""
        row = self._rows.get(item)
        if row is None:
            [row] = _look_up(self._bundle, self._added, self._rows, [item])
        return row if row >= 0 else None

    def rows_of(self, items: tuple[str, ...]) -> Rows:
        """Return the rows of ids, int64, `UNKNOWN` for those that have none; not to be changed."""
        if len(items) > MAX_CACHED:
            return _rows_of(self._bundle, self._added, self._rows, items)
        return self._of_list(items)


def _rows_of(
    bundle: Bundle, added: Mapping[str, int], cache: dict[str, int], items: tuple[str, ...]
) -> Rows:
    # One pass in C over the cache.
    cached = map(cache.get, items, repeat(NOT_LOOKED_UP))
    rows = np.fromiter(cached, np.int64, len(items))
    missing = np.flatnonzero(rows == NOT_LOOKED_UP)
    if len(missing):
        rows[missing] = _look_up(bundle, added, cache, [items[i] for i in missing.tolist()])
    rows.flags.writeable = False
    return rows


def _look_up(
    bundle: Bundle, added: Mapping[str, int], cache: dict[str, int], items: Sequence[str]
) -> list[int]:
    """Return the rows of ids, and cache them."""
    rows = bundle.find_all(items)
    rows = [added.get(item, row) for item, row in zip(items, rows, strict=True)]
    # Emptied rather than trimmed: an LRU would cost every lookup of the hot path.
    if len(cache) + len(items) > CACHED_ROWS:
        cache.clear()
    cache.update(islice(zip(items, rows, strict=True), CACHED_ROWS))
    return rows
