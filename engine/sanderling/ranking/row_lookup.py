"""Finds the rows of item ids in one catalog, and keeps what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice

import numpy as np

from sanderling.bundle.reader import Bundle
from sanderling.ranking.search_types import Rows

CACHED_ROWS = 65536  # ids whose rows are kept
CACHED_LISTS = 128  # lists of ids whose rows are kept
MAX_CACHED = 500  # ids of such a list, so that all take 5 MB at most
FEW_ITEMS = 4  # up to so many ids are looked up faster one by one
UNKNOWN = -1  # the row of an id that is in neither the bundle nor the overlay


class RowLookup:
    """The rows of a bundle's items and of added ones. Thread-safe: each entry is written once."""

    def __init__(self, bundle: Bundle, added: Mapping[str, int]) -> None:
        self._bundle = bundle
        self._added = added
        self._rows: dict[str, int] = {}
        # Pages and refreshes exclude the same items again: a list that is known takes 3 µs, 200 ids
        # one by one 15 to 50.
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
        return self.rows_once(items) if len(items) > MAX_CACHED else self._of_list(items)

    def rows_once(self, items: tuple[str, ...]) -> Rows:
        """Return what `rows_of` does, for ids that nobody asks for together again."""
        return _rows_of(self._bundle, self._added, self._rows, items)


def _rows_of(
    bundle: Bundle, added: Mapping[str, int], cache: dict[str, int], items: tuple[str, ...]
) -> Rows:
    try:
        rows = np.fromiter(map(cache.__getitem__, items), np.int64, len(items))
    except KeyError:
        known = {item: cache.get(item) for item in items}
        missing = [item for item, row in known.items() if row is None]
        known.update(zip(missing, _look_up(bundle, added, cache, missing), strict=True))
        rows = np.array([known[item] for item in items], np.int64)
    rows.flags.writeable = False
    return rows


def _look_up(
    bundle: Bundle, added: Mapping[str, int], cache: dict[str, int], items: Sequence[str]
) -> list[int]:
    """Return the rows of ids, and cache them."""
    if len(items) > FEW_ITEMS:
        found: Sequence[int | None] = bundle.find_all(items)
    else:
        found = [bundle.find(item) for item in items]
    of_bundle = (UNKNOWN if row is None else row for row in found)
    rows = [added.get(item, row) for item, row in zip(items, of_bundle, strict=True)]
    # Emptied rather than trimmed: an LRU would cost every lookup of the hot path.
    if len(cache) + len(items) > CACHED_ROWS:
        cache.clear()
    cache.update(islice(zip(items, rows, strict=True), CACHED_ROWS))
    return rows
