"""Histories on disk in shards, read one at a time: the out-of-core form of a log.

    shards.json      how many events, users, items and shards, and the kinds of event
    contexts.parquet the texts of the contexts, in the order of their rows
    counts.npy       int64 [n]: how many events each item has
    00000.parquet…   user, item, kind, time, liked, context; a user's events, in order, in one shard

Users are assigned to shards by hash, so that each shard is a fair sample of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import PopularityHistory

FORMAT = 1
NEVER = 2**62
TYPES = {
    "user": pa.int64(),
    "item": pa.int32(),
    "kind": pa.int16(),
    "time": pa.int64(),
    "liked": pa.bool_(),
    "context": pa.int32(),
}


def shard_path(folder: Path, index: int) -> Path:
    """Return the file of one shard."""
    return folder / f"{index:05d}.parquet"


@dataclass(frozen=True)
class Shards:
    """A folder of shards. Raises `TableError` where it is none, or of another format."""

    folder: Path

    validation_after: int = NEVER
    """Seconds; later events are for validation."""

    def __post_init__(self) -> None:
        if not (self.folder / "shards.json").is_file():
            raise TableError(
                f"{self.folder}: expected a folder of shards, found no shards.json in it"
            )
        found = self._summary["format"]
        if found != FORMAT:
            raise TableError(f"{self.folder}: expected shards of format {FORMAT}, found {found}")

    @cached_property
    def _summary(self) -> dict:
        return json.loads((self.folder / "shards.json").read_text())

    def __len__(self) -> int:
        return int(self._summary["shards"])

    @property
    def events(self) -> int:
        """How many events there are in all."""
        return int(self._summary["events"])

    @property
    def kinds(self) -> list[str]:
        """The policy's kinds of event."""
        return list(self._summary["kinds"])

    @property
    def contexts(self) -> list[str]:
        """The contexts' texts."""
        return pq.read_table(self.folder / "contexts.parquet")["text"].to_pylist()

    def counts(self) -> NDArray[np.int64]:
        """Return how many events each item has, int64 [n]."""
        return np.load(self.folder / "counts.npy", mmap_mode="r")

    def read(self, index: int) -> list[History]:
        """Return the histories of one shard."""
        table = pq.read_table(shard_path(self.folder, index), memory_map=True)
        user, item, kind, time, liked, context = (np.asarray(table[name]) for name in TYPES)
        columns = (
            item.astype(np.int64),
            kind.astype(np.int64),
            liked,
            context.astype(np.int64),
            time,
        )

        cuts = _history_ends(user)[:-1]
        histories = zip(*(np.split(column, cuts) for column in columns), strict=True)
        return [
            History(items, kinds, liked, contexts, times > self.validation_after, times)
            for items, kinds, liked, contexts, times in histories
        ]

    def lengths(self, index: int) -> NDArray[np.int64]:
        """Return how many events each history of a shard has, int64 [u]."""
        (user,) = self._columns(index, "user")
        return np.diff(_history_ends(user), prepend=0)

    def popularity(self) -> PopularityHistory:
        """Count the likes of each day up to `validation_after`."""
        nothing = np.empty(0, np.int64)
        total = PopularityHistory(nothing, nothing, np.empty(0), len(self.counts()))
        for part in self._popularity_parts(total.items):
            total = total.plus(part)
        return total

    def _popularity_parts(self, items: int) -> Iterator[PopularityHistory]:
        for index in range(len(self)):
            user, item, time, liked = self._columns(index, "user", "item", "time", "liked")
            kept = liked & (time <= self.validation_after)
            rows = item[kept].astype(np.int64)
            yield PopularityHistory.of(user[kept], rows, time[kept], items)

    def _columns(self, index: int, *names: str) -> list[NDArray]:
        table = pq.read_table(shard_path(self.folder, index), columns=list(names))
        return [np.asarray(table[name]) for name in names]


def _history_ends(user: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each user's run of events ends, int64 [u]."""
    return np.append(np.flatnonzero(np.diff(user)) + 1, len(user))
