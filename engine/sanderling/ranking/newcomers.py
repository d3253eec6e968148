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


def outside(rows: Rows, is_newcomer: NDArray[np.bool_], *left_out: Rows) -> Newcomers:
    """Return the newcomers, ascending rows, that are in none of the lists `left_out`.

    `is_newcomer` bool [n + 1] tells them from the n rows; its last one is False, and stands for -1.
    The time depends on the lists alone.
    """
    others = np.concatenate(left_out)
    listed = sorted(set(others[is_newcomer[others]].tolist()))
    return Newcomers(rows, rows.searchsorted(listed)) if listed else Newcomers(rows)
