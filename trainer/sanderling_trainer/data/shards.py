"""Histories on disk, in shards of which one at a time is in memory: the out-of-core form of a log.

    shards.json      how many events, users, items and shards, and the kinds of event
    contexts.parquet the texts of the contexts, in the order of their rows
    counts.npy       int64 [n]: how many events each item has
    00000.parquet…   user, item, kind, time, liked, context: a user's events lie in one shard, in order

Users are spread over the shards by hash, so that every shard is a fair sample of them. Refuses to know where the log
came from, and what is learned from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, Trends

FORMAT = 1
EVENTS = 2**20
NEVER = 2**62
TYPES = {
    "user": pa.int64(),
    "item": pa.int32(),
    "kind": pa.int16(),
    "time": pa.int64(),
    "liked": pa.bool_(),
    "context": pa.int32(),
}


@dataclass(frozen=True)
class Shards:
    """A folder of shards; events later than `fresh_after` (seconds) are fresh."""

    folder: Path
    fresh_after: int = NEVER

    def __post_init__(self) -> None:
        if not (self.folder / "shards.json").is_file():
            raise TableError(
                f"{self.folder}: expected a folder of shards, found no shards.json in it"
            )
        if self._facts["format"] != FORMAT:
            raise TableError(
                f"{self.folder}: expected shards of format {FORMAT}, found {self._facts['format']}"
            )

    @cached_property
    def _facts(self) -> dict:
        return json.loads((self.folder / "shards.json").read_text())

    def __len__(self) -> int:
        return int(self._facts["shards"])

    @property
    def events(self) -> int:
        """How many events there are in all."""
        return int(self._facts["events"])

    @property
    def kinds(self) -> list[str]:
        """The policy's kinds of event."""
        return list(self._facts["kinds"])

    @property
    def contexts(self) -> list[str]:
        """The contexts' texts."""
        return pq.read_table(self.folder / "contexts.parquet")["text"].to_pylist()

    def counts(self) -> NDArray[np.int64]:
        """Return how many events each item has, int64 [n]."""
        return np.load(self.folder / "counts.npy", mmap_mode="r")

    def read(self, at: int) -> list[History]:
        """Return the histories of one shard."""
        table = pq.read_table(self._path(at), memory_map=True)
        item, kind, time, liked, context = (np.asarray(table[name]) for name in list(TYPES)[1:])
        ends = self._ends(np.asarray(table["user"]))
        columns = (
            item.astype(np.int64),
            kind.astype(np.int64),
            liked,
            context.astype(np.int64),
            time,
        )
        parts = zip(*(np.split(column, ends[:-1]) for column in columns), strict=True)
        return [
            History(items, kinds, liked, contexts, times > self.fresh_after, times)
            for items, kinds, liked, contexts, times in parts
        ]

    def lengths(self, at: int) -> NDArray[np.int64]:
        """Return how many events each history of a shard has, int64 [u]."""
        return np.diff(
            self._ends(np.asarray(pq.read_table(self._path(at), columns=["user"])["user"])),
            prepend=0,
        )

    def moment(self, share: float) -> int:
        """Return the end of the first day, in seconds, by which this share of the events had happened."""
        days: dict[int, int] = {}
        for at in range(len(self)):
            times = np.asarray(pq.read_table(self._path(at), columns=["time"])["time"])
            for day, count in zip(*np.unique(times // DAY, return_counts=True), strict=True):
                days[int(day)] = days.get(int(day), 0) + int(count)
        ordered = sorted(days)
        reached = np.cumsum([days[day] for day in ordered]) >= share * self.events
        return (ordered[int(reached.argmax())] + 1) * DAY - 1

    def trends(self) -> Trends:
        """Count what was liked up to `fresh_after` day by day; a row for each item and day that has any."""
        nothing = np.empty(0, np.int64)
        counted = Trends(nothing, nothing, nothing, len(self.counts()))
        for at in range(len(self)):
            table = pq.read_table(self._path(at), columns=["user", "item", "time", "liked"])
            user, item, time, liked = (np.asarray(table[name]) for name in table.column_names)
            known = liked & (time <= self.fresh_after)
            counted = counted.plus(
                Trends.of(user[known], item[known].astype(np.int64), time[known], counted.items)
            )
        return counted

    def _path(self, at: int) -> Path:
        return self.folder / f"{at:05d}.parquet"

    @staticmethod
    def _ends(user: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.append(np.flatnonzero(np.diff(user)) + 1, len(user))


class Writer:
    """Writes a folder of shards, one after the other; without `close` it is none."""

    def __init__(self, folder: Path, items: int) -> None:
        self.folder, self.shards, self.events, self.users = folder, 0, 0, 0
        self._counts = np.zeros(items, np.int64)
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, columns: Mapping[str, NDArray]) -> None:
        """Write one shard from the columns of `TYPES`, all of one length and in any order of users and times."""
        order = np.lexsort((columns["time"], columns["user"]))
        ordered = {name: columns[name][order] for name in TYPES}
        pq.write_table(
            pa.table({name: pa.array(ordered[name], kind) for name, kind in TYPES.items()}),
            self.folder / f"{self.shards:05d}.parquet",
            compression="zstd",
        )
        self._counts += np.bincount(ordered["item"], minlength=len(self._counts))
        self.users += int((np.diff(ordered["user"]) != 0).sum()) + (len(order) > 0)
        self.events, self.shards = self.events + len(order), self.shards + 1

    def close(self, kinds: Sequence[str], contexts: Sequence[str] = ()) -> Shards:
        """Write down what the shards are, last of all."""
        np.save(self.folder / "counts.npy", self._counts)
        pq.write_table(
            pa.table({"text": pa.array(contexts, pa.string())}), self.folder / "contexts.parquet"
        )
        facts = {"format": FORMAT, "items": len(self._counts), "kinds": list(kinds)}
        facts |= {name: getattr(self, name) for name in ("shards", "events", "users")}
        (self.folder / "shards.json").write_text(json.dumps(facts) + "\n")
        return Shards(self.folder)


def spread(
    histories: Sequence[History], folder: Path, items: int, kinds: Sequence[str], shards: int
) -> Shards:
    """Write histories in memory into so many shards, each history whole; 1 to as many as there are histories."""
    writer = Writer(folder, items)
    columns = {
        "item": "items",
        "kind": "kinds",
        "time": "times",
        "liked": "liked",
        "context": "contexts",
    }
    for at in range(shards):
        own = histories[at::shards]
        user = np.repeat(np.arange(at, len(histories), shards), [len(history) for history in own])
        told = {
            name: np.concatenate([getattr(one, field) for one in own])
            for name, field in columns.items()
        }
        writer.add({"user": user, **told})
    return writer.close(kinds)
