"""Writes shards: from histories in memory, or from a Parquet log of any size in bounded memory.

A log takes two passes. The first streams it and spills each event, as numbers, to the shard of its
user; the second sorts one shard after the other. In memory are a part of the log, the catalog's
ids, the contexts' texts, and one shard.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling.tables import cells
from sanderling.tables.columns import LOG_OPTIONAL, LOG_REQUIRED, locate
from sanderling_trainer.data.columns import Columns, catalog_rows, codes, kinds_by_sign
from sanderling_trainer.data.files import SourceTable
from sanderling_trainer.data.histories import History, policy_kinds
from sanderling_trainer.data.shards import FORMAT, TYPES, Shards, shard_path
from sanderling_trainer.data.tables import Catalog

EVENTS = 2**20
ROWS = 2**18

Read = Callable[[Path, pa.Array], Iterator[pa.Table]]


class ShardWriter:
    """Writes a folder of shards, one after the other; only `close` makes it a folder of shards."""

    def __init__(self, folder: Path, items: int) -> None:
        self._folder = folder
        self._shards = 0
        self._events = 0
        self._users = 0
        self._counts = np.zeros(items, np.int64)
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, columns: Mapping[str, NDArray]) -> None:
        """Write one shard from the columns of `TYPES`, all of one length, in any order."""
        order = np.lexsort((columns["time"], columns["user"]))
        ordered = {name: columns[name][order] for name in TYPES}
        table = pa.table({name: pa.array(ordered[name], kind) for name, kind in TYPES.items()})
        pq.write_table(table, shard_path(self._folder, self._shards), compression="zstd")

        self._counts += np.bincount(ordered["item"], minlength=len(self._counts))
        self._users += int((np.diff(ordered["user"]) != 0).sum()) + (len(order) > 0)
        self._events += len(order)
        self._shards += 1

    def close(self, kinds: Sequence[str], contexts: Sequence[str] = ()) -> Shards:
        """Write the summary, last of all, and return the shards."""
        np.save(self._folder / "counts.npy", self._counts)
        texts = pa.table({"text": pa.array(contexts, pa.string())})
        pq.write_table(texts, self._folder / "contexts.parquet")

        summary = {
            "format": FORMAT,
            "items": len(self._counts),
            "kinds": list(kinds),
            "shards": self._shards,
            "events": self._events,
            "users": self._users,
        }
        (self._folder / "shards.json").write_text(json.dumps(summary) + "\n")
        return Shards(self._folder)


def shard_histories(
    histories: Sequence[History], folder: Path, items: int, kinds: Sequence[str], shards: int
) -> Shards:
    """Write histories in memory into `shards` shards, from 1 to one for each history."""
    writer = ShardWriter(folder, items)
    attributes = {
        "item": "items",
        "kind": "kinds",
        "time": "times",
        "liked": "liked",
        "context": "contexts",
    }

    for index in range(shards):
        members = histories[index::shards]
        lengths = [len(history) for history in members]
        columns = {"user": np.repeat(np.arange(index, len(histories), shards), lengths)}
        for name, attribute in attributes.items():
            columns[name] = np.concatenate([getattr(history, attribute) for history in members])
        writer.add(columns)

    return writer.close(kinds)


def shard_log(
    log: Path, catalog: Catalog, folder: Path, events: int = EVENTS, read: Read | None = None
) -> Shards:
    """Write the shards of a log, a Parquet file or a folder of them, of about `events` events each.

    read: yields what `stream` yields, in any order, where other processes read the log.

    Raises `TableError` as `read_interactions` does, and names the row.
    """
    count = max(1, -(-open_log(log).count_rows() // events))
    kinds: dict[str, int] = {}
    contexts: dict[str, int] = {}

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        paths = [Path(spill) / f"{index}.arrows" for index in range(count)]
        parts = (read or stream)(log, pa.array(catalog.ids, pa.string()))
        _spill_log(parts, paths, kinds, contexts)

        # Kinds get their codes in order of appearance; only now are all known and can be sorted.
        names = policy_kinds(kinds)
        final = np.array([names.index(kind) for kind in kinds], np.int16)
        writer = ShardWriter(folder, len(catalog))
        for path in paths:
            with pa.ipc.open_stream(str(path)) as file:
                table = file.read_all()
            columns = {name: np.asarray(table[name]) for name in TYPES}
            writer.add(columns | {"kind": final[columns["kind"]]})

    return writer.close(names, list(contexts))


def open_log(log: Path) -> ds.Dataset:
    """Return a log as a dataset; raise `TableError` where it is no Parquet or lacks a column."""
    try:
        source = ds.dataset(log, format="parquet")
        names = source.schema.names
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{log}: expected Parquet, found: {error}") from error
    locate(str(log), names, LOG_REQUIRED)
    return source


def used_columns(log: Path) -> list[str]:
    """Return the columns of a log that training reads."""
    names = open_log(log).schema.names
    return list(locate(str(log), names, LOG_REQUIRED, LOG_OPTIONAL))


def stream(log: Path, ids: pa.Array) -> Iterator[pa.Table]:
    """Yield the parts of a log, checked, in order."""
    first = 0
    columns = used_columns(log)
    # Not the dataset's own scanner, which reads ahead without a bound on memory.
    for file in open_log(log).files:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(ROWS, columns=columns):
                if len(batch):
                    yield checked_part(pa.Table.from_batches([batch]), log, ids, first)
                first += len(batch)


def checked_part(table: pa.Table, log: Path, ids: pa.Array, first: int = 0) -> pa.Table:
    """Return user (a hash), item (a catalog row), time, liked; kind and context as text.

    Raises `TableError`, whose row numbers count on from `first`.
    """
    rows = np.arange(first, first + len(table))
    source = SourceTable(str(log), table, lambda: [(str(log), first + len(table))])
    part = Columns(source, table, rows=rows)
    reward = part.rewards("reward") if part.has("reward") else np.ones(len(table), np.float32)
    nulls = pa.nulls(len(table), pa.string())
    return pa.table(
        {
            "user": _user_hashes(part.names("user_id", cells.A_USER)),
            "item": catalog_rows(part, ids),
            "time": part.seconds("timestamp"),
            "liked": reward > 0,
            "kind": part.names("kind", cells.A_KIND) if part.has("kind") else kinds_by_sign(reward),
            "context": part.strings("context") if part.has("context") else nulls,
        }
    )


def _spill_log(
    parts: Iterator[pa.Table],
    paths: Sequence[Path],
    kinds: dict[str, int],
    contexts: dict[str, int],
) -> None:
    """Append each event to its user's shard file; `kinds` and `contexts` collect the codes."""
    schema = pa.schema(TYPES)
    lz4 = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        files = [
            stack.enter_context(pa.ipc.new_stream(str(path), schema, options=lz4)) for path in paths
        ]
        for part in parts:
            columns = {name: np.asarray(part[name]) for name in ("user", "item", "time", "liked")}
            columns["kind"] = _growing_codes(part, "kind", kinds)
            columns["context"] = _growing_codes(part, "context", contexts)
            _spill_part(columns, files)


def _spill_part(
    columns: Mapping[str, NDArray], files: Sequence[pa.ipc.RecordBatchStreamWriter]
) -> None:
    shard = columns["user"] % len(files)
    order = np.argsort(shard, kind="stable")
    starts = np.searchsorted(shard[order], np.arange(len(files) + 1))
    table = pa.table({name: pa.array(columns[name][order], kind) for name, kind in TYPES.items()})

    for file, start, stop in zip(files, starts[:-1], starts[1:], strict=True):
        if stop > start:
            file.write_table(table.slice(start, stop - start))


def _user_hashes(users: pa.Array) -> NDArray[np.int64]:
    """Return 63 bits of BLAKE2b of each user id: the same in every run, distinct in practice."""
    code, names = codes(users)
    digests = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in names)
    return (np.frombuffer(digests, np.uint64) >> np.uint64(1)).astype(np.int64)[code]


def _growing_codes(part: pa.Table, column: str, known: dict[str, int]) -> NDArray[np.int64]:
    """Return the code of each name, -1 for null or empty; new names are added to `known`."""
    code, names = codes(part[column].combine_chunks())
    values = np.array([known.setdefault(name, len(known)) if name else -1 for name in names])
    return np.append(values, -1).astype(np.int64)[code]
