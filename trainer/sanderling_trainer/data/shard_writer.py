"""From an interaction log in Parquet, of any size, to shards, in two passes of bounded memory.

The first pass streams the log and spills each event, as numbers, to the shard of its user; the second sorts one shard
after the other. In memory are a part of the log, the catalogue's ids, the contexts' texts, and one shard. Refuses to
know what is learned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.columns import Columns, codes
from sanderling_trainer.data.shards import EVENTS, TYPES, Shards, Writer
from sanderling_trainer.data.tables import Catalogue

ROWS = 2**18
REQUIRED = ("user_id", "item_id", "timestamp")
OPTIONAL = ("reward", "kind", "context")
SIGNS = ["dislike", "neutral", "like"]

Read = Callable[[Path, pa.Array], Iterator[pa.Table]]


def shard(
    log: Path, catalogue: Catalogue, folder: Path, events: int = EVENTS, read: Read | None = None
) -> Shards:
    """Write the shards of a log, a Parquet file or a folder of them, of about `events` events each.

    `read` yields what `stream` yields, in any order, for a log that others read. Raises `TableError` as
    `read_interactions` does, and names the row.
    """
    count = max(1, -(-opened(log).count_rows() // events))
    kinds: dict[str, int] = {}
    contexts: dict[str, int] = {}
    folder.mkdir(parents=True, exist_ok=True)
    schema, lz4 = pa.schema(TYPES), pa.ipc.IpcWriteOptions(compression="lz4")
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        with ExitStack() as stack:
            files = [
                stack.enter_context(
                    pa.ipc.new_stream(str(Path(spill) / f"{at}.arrows"), schema, options=lz4)
                )
                for at in range(count)
            ]
            for part in (read or stream)(log, pa.array(catalogue.ids, pa.string())):
                coded = {
                    "kind": _coded(part, "kind", kinds),
                    "context": _coded(part, "context", contexts),
                }
                _spill(_numbers(part) | coded, files)
        names = list(dict.fromkeys(["view", *sorted(kinds), "click"]))
        final = np.array([names.index(kind) for kind in kinds], np.int16)
        writer = Writer(folder, len(catalogue))
        for at in range(count):
            with pa.ipc.open_stream(str(Path(spill) / f"{at}.arrows")) as file:
                table = file.read_all()
            columns = {name: np.asarray(table[name]) for name in TYPES}
            writer.add(columns | {"kind": final[columns["kind"]]})
    return writer.close(names, list(contexts))


def opened(log: Path) -> ds.Dataset:
    """Return the log with the columns that it must have."""
    try:
        source = ds.dataset(log, format="parquet")
        names = source.schema.names
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{log}: expected Parquet, found: {error}") from error
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise TableError(
            f"{log}: expected the columns {', '.join(REQUIRED)}, found {', '.join(names)}"
        )
    return source


def used(log: Path) -> list[str]:
    """Return the columns of a log that mean something."""
    return [*REQUIRED, *(name for name in OPTIONAL if name in opened(log).schema.names)]


def stream(log: Path, ids: pa.Array) -> Iterator[pa.Table]:
    """Yield `checked` parts of a log, one after the other; a dataset's own scanner would read ahead without a bound."""
    first, columns = 0, used(log)
    for file in opened(log).files:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(ROWS, columns=columns):
                if len(batch):
                    yield checked(pa.Table.from_batches([batch]), log, ids, first)
                first += len(batch)


def checked(table: pa.Table, log: Path, ids: pa.Array, first: int = 0) -> pa.Table:
    """Return user (a hash), item (a row of the catalogue), time and liked as numbers, kind and context as text.

    Raises `TableError`; its row numbers count on from `first`.
    """
    part = _Part(log, table, first)
    reward = part.rewards("reward") if part.has("reward") else np.ones(len(table), np.float32)
    signs = pa.array(SIGNS).take(pa.array(np.sign(reward).astype(int) + 1))
    return pa.table(
        {
            "user": _hashes(part.names("user_id", "a user id")),
            "item": _rows(part, ids),
            "time": part.seconds("timestamp"),
            "liked": reward > 0,
            "kind": part.names("kind", "a kind") if part.has("kind") else signs,
            "context": part.strings("context")
            if part.has("context")
            else pa.nulls(len(table), pa.string()),
        }
    )


@dataclass(frozen=True)
class _Part(Columns):
    """Some rows of a table, whose faults count from its beginning."""

    first: int = 0

    def fault(self, row: int, name: str, expected: str, found: object) -> TableError:
        """Return the error for one cell; `row` counts from the part's beginning."""
        return super().fault(self.first + row, name, expected, found)


def _spill(columns: Mapping[str, NDArray], files: Sequence[pa.ipc.RecordBatchStreamWriter]) -> None:
    """Append each event to the file of its user."""
    home = columns["user"] % len(files)
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(len(files) + 1))
    table = pa.table({name: pa.array(columns[name][order], kind) for name, kind in TYPES.items()})
    for at, file in enumerate(files):
        if starts[at + 1] > starts[at]:
            file.write_table(table.slice(starts[at], starts[at + 1] - starts[at]))


def _numbers(part: pa.Table) -> dict[str, NDArray]:
    return {name: np.asarray(part[name]) for name in ("user", "item", "time", "liked")}


def _rows(part: _Part, ids: pa.Array) -> NDArray[np.int64]:
    names = part.names("item_id", "an item id")
    rows = pc.index_in(names, value_set=ids)
    unknown = pc.index(pc.is_null(rows), True).as_py()
    if unknown >= 0:
        raise part.fault(
            unknown, "item_id", f"one of the {len(ids)} items of the catalogue", names[unknown]
        )
    return np.asarray(rows, np.int64)


def _hashes(users: pa.Array) -> NDArray[np.int64]:
    """Return 63 bits of BLAKE2b of each user's id: the same in every run, and no two users share them in practice."""
    code, names = codes(users)
    digests = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in names)
    return (np.frombuffer(digests, np.uint64) >> np.uint64(1)).astype(np.int64)[code]


def _coded(part: pa.Table, name: str, book: dict[str, int]) -> NDArray[np.int64]:
    """Return codes by a book that grows; -1 for nothing."""
    code, names = codes(part[name].combine_chunks())
    places = np.array(
        [book.setdefault(name, len(book)) if name else -1 for name in names], np.int64
    )
    return np.append(places, -1)[code]
