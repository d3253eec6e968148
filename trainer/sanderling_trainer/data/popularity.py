"""Recent popularity of items: how many users liked each in windows of several lengths before a day.

Recent popularity is a strong signal that only the trainer can compute. The policy learns how much
to trust it, and a release carries it to devices as the item bias. The day itself is left out, since
a release could not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.influence import influence_factors

DAY = 86_400  # seconds
WINDOWS = (3, 7, 14, 28, 90)  # days
COUNTS = len(WINDOWS) + 1  # and one for all time
FEATURES = COUNTS + 2  # and whether ever liked, and the age
PRIOR = 0.3  # users added to every count, so that 0 has a logarithm
MAX_AGE_DAYS = 60
NEVER = 2**62  # days

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PopularityHistory:
    """Daily counts of likes, sparse, c entries sorted by day."""

    day: Ints
    """[c], days since 1970."""

    row: Ints
    """[c], catalog rows."""

    users: Floats
    """[c], how many different users liked the item on the day, those of one install bounded."""

    items: int
    """n, the size of the catalog."""

    @staticmethod
    def of(
        user: Ints, row: Ints, time: Ints, items: int, install: Ints | None = None
    ) -> PopularityHistory:
        """Count likes, int64 [e] each, time in seconds; a user counts once per item and day.

        install: int64 [e], the installs of the users; the influence of each is then bounded
        (`influence.influence_factors`).
        """
        likes = distinct_likes(user, row, time, install)
        (day, liked), entry = np.unique(likes[:2], axis=1, return_inverse=True)
        weight = None if install is None else like_factors(likes)
        count = np.bincount(entry.ravel(), weight, minlength=len(day)).astype(np.float64)
        return PopularityHistory(day, liked, count, items)

    @staticmethod
    def of_histories(histories: Sequence[History], items: int) -> PopularityHistory:
        """Count the likes of histories, without events that a state reset replayed."""
        users, rows, times, installs = likes_of(histories)
        if (installs < 0).all():
            return PopularityHistory.of(users, rows, times, items)
        return PopularityHistory.of(users, rows, times, items, installs)

    def plus(self, other: PopularityHistory) -> PopularityHistory:
        """Return the sum of both; a user whom both counted on one day counts twice."""
        day = np.concatenate([self.day, other.day])
        row = np.concatenate([self.row, other.row])
        users = np.concatenate([self.users, other.users])

        (day, row), entry = np.unique(np.stack([day, row]), axis=1, return_inverse=True)
        total = np.bincount(entry.ravel(), users, minlength=len(day)).astype(np.float64)
        return PopularityHistory(day, row, total, max(self.items, other.items))

    def features(self, days: Sequence[int]) -> NDArray[np.float32]:
        """Return float32 [q, n, FEATURES]: what is known of each item when each of q days begins.

        For each window, and for all time, log((c + 0.3) / (mean c + 0.3)) of an item's users c;
        then 1 if anybody ever liked it; then the days since the first like, at most 60, over 60.
        """
        table = np.empty((len(days), self.items, FEATURES), np.float32)
        for index, day in enumerate(days):
            table[index] = self._features(day)
        return table

    def _features(self, day: int) -> NDArray[np.float32]:
        before = slice(0, int(np.searchsorted(self.day, day)))
        days = self.day[before]
        rows = self.row[before]
        users = self.users[before]

        columns = []
        for window in (*WINDOWS, day + 1):
            recent = slice(int(np.searchsorted(days, day - window)), None)
            count = np.bincount(rows[recent], users[recent], minlength=self.items)
            columns.append(np.log((count + PRIOR) / (count.mean() + PRIOR)))

        # The last window holds all days, so `count > 0` now marks items ever liked.
        first = np.full(self.items, day)
        np.minimum.at(first, rows, days)
        columns.append(count > 0)
        columns.append(np.minimum(day - first, MAX_AGE_DAYS) / MAX_AGE_DAYS)
        return np.stack(columns, axis=1).astype(np.float32)

    def first_days(self) -> Ints:
        """Return int64 [n]: the day on which each item was first liked, `NEVER` if never."""
        first = np.full(self.items, NEVER)
        np.minimum.at(first, self.row, self.day)
        return first

    def save(self, path: Path) -> None:
        """Write a Parquet file."""
        pq.write_table(pa.table({"day": self.day, "row": self.row, "users": self.users}), path)

    @staticmethod
    def load(path: Path, items: int) -> PopularityHistory:
        """Read what `save` wrote, for a catalog of so many items."""
        table = pq.read_table(path)
        day, row, users = (table[name].to_numpy() for name in ("day", "row", "users"))
        return PopularityHistory(day, row, users.astype(np.float64), items)


def likes_of(histories: Sequence[History]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return user, item, time and install, int64 [e] each, of the likes that were not replayed."""
    if not histories:
        none = np.empty(0, np.int64)
        return none, none, none, none
    n_new = [len(history) - history.n_replayed for history in histories]
    users = np.repeat(np.arange(len(histories)), n_new)
    installs = np.array([history.install for history in histories], np.int64)[users]
    rows = np.concatenate([history.items[history.n_replayed :] for history in histories])
    times = np.concatenate([history.times[history.n_replayed :] for history in histories])
    liked = np.concatenate([history.liked[history.n_replayed :] for history in histories])
    return users[liked], rows[liked], times[liked], installs[liked]


def distinct_likes(user: Ints, row: Ints, time: Ints, install: Ints | None = None) -> Ints:
    """Return int64 [4, e]: day, item, user and install (0 unless given) of all likes that differ in
    these.
    """
    columns = [time // DAY, row, user, np.zeros_like(user) if install is None else install]
    return np.unique(np.stack(columns), axis=1)


def like_factors(likes: Ints) -> Floats:
    """Return how much each of the distinct likes [4, e] counts, float64 [e] in (0, 1]."""
    day, row, _, install = likes
    of_day = day * (int(row.max(initial=0)) + 1) + row
    return influence_factors(install, np.ones(len(day)), row, of_day)
