"""The newcomers from which a request's quota draws: eligible ones outside its pool.

A newcomer is an item with few impressions in the fleet: the bundle lists it, or the app added it on
this device and the bundle does not know it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.search_types import Rows

NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Newcomers:
    """The rows `rows` int64 [r] but for those at the positions `left_out`, ascending int64 [l]."""

    rows: Rows
    left_out: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)

    def __len__(self) -> int:
        return len(self.rows) - len(self.left_out)

    def row(self, i: int) -> int:
        """Return the row of newcomer i, in the order of `rows`."""
        # Position p is left out and has p - l newcomers before it, where l were left out earlier.
        before = self.left_out - np.arange(len(self.left_out))
        return int(self.rows[i + int(np.searchsorted(before, i, side="right"))])


NO_NEWCOMERS = Newcomers(NO_ROWS)


def outside(rows: Rows, pool: Rows, excluded: Rows) -> Newcomers:
    """Return the newcomers among ascending rows that are neither in a pool nor excluded.

    The time does not depend on the number of newcomers, but for logarithms.
    """
    others = np.concatenate([pool, excluded])
    places = rows.searchsorted(others)
    is_listed = places < rows.searchsorted(others, side="right")
    return Newcomers(rows, np.unique(places[is_listed]))
