"""From an interaction log in Parquet, of any size, to shards, in two passes of bounded memory.

The first pass streams the log and spills each event, as numbers, to the shard of its user; the second sorts one shard
after the other. In memory are a part of the log, the catalogue's ids, the contexts' texts, and one shard. Refuses to
know what is learned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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


def shard(log: Path, catalogue: Catalogue, folder: Path, events: int = EVENTS) -> Shards:
    """Write the shards of a log, a Parquet file or a folder of them, of about `events` events each.

    Raises `TableError` as `read_interactions` does, and names the row.
    """
    source = _open(log)
    count = max(1, -(-source.count_rows() // events))
    books = _Books(pa.array(catalogue.ids, pa.string()), {}, {})
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        _spill(log, source, books, Path(spill), count)
        kinds = list(dict.fromkeys(["view", *sorted(books.kinds), "click"]))
        final = np.array([kinds.index(kind) for kind in books.kinds], np.int16)
        writer = Writer(folder, len(catalogue))
        for at in range(count):
            table = pq.read_table(Path(spill) / f"{at}.parquet")
            columns = {name: np.asarray(table[name]) for name in TYPES}
            writer.add({**columns, "kind": final[columns["kind"]]} if len(table) else columns)
    return writer.close(kinds, list(books.contexts))


@dataclass(frozen=True)
class _Books:
    """The code books: item ids as they stand, kinds and contexts as they turn up."""

    ids: pa.Array
    kinds: dict[str, int]
    contexts: dict[str, int]


@dataclass(frozen=True)
class _Part(Columns):
    """Some rows of a table, whose faults count from its beginning."""

    first: int = 0

    def fault(self, row: int, name: str, expected: str, found: object) -> TableError:
        """Return the error for one cell; `row` counts from the part's beginning."""
        return super().fault(self.first + row, name, expected, found)


def _open(log: Path) -> ds.Dataset:
    try:
        source = ds.dataset(log, format="parquet")
        names = source.schema.names
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{log}: expected Parquet, found: {error}") from error
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise TableError(f"{log}: expected the columns {', '.join(REQUIRED)}, found {', '.join(names)}")
    return source


def _spill(log: Path, source: ds.Dataset, books: _Books, folder: Path, count: int) -> None:
    with ExitStack() as stack:
        schema = pa.schema(TYPES)
        writers = [
            stack.enter_context(pq.ParquetWriter(folder / f"{at}.parquet", schema, compression="lz4"))
            for at in range(count)
        ]
        for part in _parts(log, source):
            columns = _numbers(part, books)
            home = columns["user"] % count
            order = np.argsort(home, kind="stable")
            starts = np.searchsorted(home[order], np.arange(count + 1))
            table = pa.table({name: pa.array(columns[name][order], kind) for name, kind in TYPES.items()})
            for at, writer in enumerate(writers):
                if starts[at + 1] > starts[at]:
                    writer.write_table(table.slice(starts[at], starts[at + 1] - starts[at]))


def _parts(log: Path, source: ds.Dataset) -> Iterator[_Part]:
    first = 0
    names = [*REQUIRED, *(name for name in OPTIONAL if name in source.schema.names)]
    for batch in source.to_batches(columns=names, batch_size=ROWS, batch_readahead=1, fragment_readahead=1):
        if len(batch):
            yield _Part(log, pa.Table.from_batches([batch]), first)
        first += len(batch)


def _numbers(part: _Part, books: _Books) -> dict[str, NDArray]:
    """Return the columns of `TYPES` with the kinds coded in the order in which they turn up."""
    time = part.seconds("timestamp")
    reward = part.rewards("reward") if part.has("reward") else np.ones(len(time), np.float32)
    return {
        "user": _hashes(part.names("user_id", "a user id")),
        "item": _rows(part, books),
        "kind": _coded(part.names("kind", "a kind"), books.kinds) if part.has("kind") else _signs(reward, books),
        "time": time,
        "liked": reward > 0,
        "context": _coded(part.strings("context"), books.contexts)
        if part.has("context")
        else np.full(len(time), -1, np.int64),
    }


def _rows(part: _Part, books: _Books) -> NDArray[np.int64]:
    names = part.names("item_id", "an item id")
    rows = pc.index_in(names, value_set=books.ids)
    unknown = pc.index(pc.is_null(rows), True).as_py()
    if unknown >= 0:
        raise part.fault(unknown, "item_id", f"one of the {len(books.ids)} items of the catalogue", names[unknown])
    return np.asarray(rows, np.int64)


def _hashes(users: pa.Array) -> NDArray[np.int64]:
    """Return 63 bits of BLAKE2b of each user's id: the same in every run, and no two users share them in practice."""
    code, names = codes(users)
    digests = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in names)
    return (np.frombuffer(digests, np.uint64) >> np.uint64(1)).astype(np.int64)[code]


def _coded(column: pa.Array, book: dict[str, int]) -> NDArray[np.int64]:
    code, names = codes(column)
    places = np.array([book.setdefault(name, len(book)) if name else -1 for name in names], np.int64)
    return np.append(places, -1)[code]


def _signs(reward: NDArray[np.float32], books: _Books) -> NDArray[np.int64]:
    signs, which = np.unique(np.sign(reward), return_inverse=True)
    names = [SIGNS[int(sign) + 1] for sign in signs]
    return np.array([books.kinds.setdefault(name, len(books.kinds)) for name in names], np.int64)[which]
