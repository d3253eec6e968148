"""What is in fashion: how many users liked each item in the days before a moment, in windows of several lengths.

Recent popularity is a strong signal, and it is the lab that knows it: the policy learns how much to trust it, and a
release carries it to the devices as an item bias. Refuses to know who liked what, and to look at the day itself, of
which a release could not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

DAY = 86_400
WINDOWS = (3, 7, 14, 28, 90)
COUNTS = len(WINDOWS) + 1
FEATURES = COUNTS + 2
PRIOR = 0.3
YOUNG = 60

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trends:
    """Sparse counts: on `day` [c] (since 1970) `users` [c] different users liked item `row` [c] of n; sorted by day."""

    day: Ints
    row: Ints
    users: Ints
    items: int

    @staticmethod
    def of(user: Ints, row: Ints, time: Ints, items: int) -> Trends:
        """Count liked events, int64 [e] each, time in seconds; a user counts once for an item and a day."""
        distinct = np.unique(np.stack([time // DAY, row, user]), axis=1)
        (day, liked), count = np.unique(distinct[:2], axis=1, return_counts=True)
        return Trends(day, liked, count.astype(np.int64), items)

    def plus(self, other: Trends) -> Trends:
        """Return both counts together; a user counted by both on one day counts twice."""
        day, row = np.concatenate([self.day, other.day]), np.concatenate([self.row, other.row])
        (day, row), place = np.unique(np.stack([day, row]), axis=1, return_inverse=True)
        users = np.bincount(place.ravel(), np.concatenate([self.users, other.users])).astype(
            np.int64
        )
        return Trends(day, row, users, max(self.items, other.items))

    def features(self, days: Sequence[int]) -> NDArray[np.float32]:
        """Return float32 [q, n, FEATURES], what is known when each day begins.

        For each window, and for all time, the log of an item's users over the mean item's, each with 0.3 added so that
        an item nobody liked has a place too; then 1 if anybody ever liked it, and the days since the first who did, at
        most 60, over 60.
        """
        found = np.empty((len(days), self.items, FEATURES), np.float32)
        for at, day in enumerate(days):
            found[at] = self._features(day)
        return found

    def _features(self, day: int) -> NDArray[np.float32]:
        known = slice(0, int(np.searchsorted(self.day, day)))
        days, rows, users = self.day[known], self.row[known], self.users[known]
        columns = []
        for window in (*WINDOWS, day + 1):
            recent = slice(int(np.searchsorted(days, day - window)), None)
            count = np.bincount(rows[recent], users[recent], minlength=self.items)
            columns.append(np.log((count + PRIOR) / (count.mean() + PRIOR)))
        first = np.full(self.items, day)
        np.minimum.at(first, rows, days)
        columns += [count > 0, np.minimum(day - first, YOUNG) / YOUNG]
        return np.stack(columns, axis=1).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a Parquet file."""
        pq.write_table(pa.table({"day": self.day, "row": self.row, "users": self.users}), path)

    @staticmethod
    def load(path: Path, items: int) -> Trends:
        """Read what `save` wrote."""
        table = pq.read_table(path)
        day, row, users = (table[name].to_numpy() for name in ("day", "row", "users"))
        return Trends(day, row, users, items)
