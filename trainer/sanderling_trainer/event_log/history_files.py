"""Files of what is known of past events, so that the segments that told it may be deleted.

Files `history/<uuid7>.parquet` hold the steps of user states: observations, outcomes that updated
the state, and the steps that a reset replayed. A row without an item says that all events of its
install up to `seq` are accounted for: they are in the table, or changed no state. Files may repeat
rows; a repeated row counts once.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sanderling.errors import EventError
from sanderling_trainer.event_log.daily_parquet import to_bytes
from sanderling_trainer.event_log.file_errors import naming_file
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.tombstones import Tombstones

FOLDER = "history"
SUFFIX = ".parquet"
SCHEMA = pa.schema(
    {
        "install": pa.string(),
        "user": pa.string(),
        "seq": pa.int64(),
        "step": pa.int64(),
        "item": pa.string(),
        "kind": pa.string(),
        "time": pa.int64(),
        "source": pa.string(),
    }
)
"""`time` is in wall ms since 1970; `step` counts from 0 the steps that one reset replayed; `source`
is the event's type: `observation`, `OUTCOME` or `RESET`."""

OUTCOME, RESET = "outcome", "state_reset"

EMPTY = to_bytes(SCHEMA.empty_table())


def parse(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return the table of a file, or some of its columns; raise `EventError` on another file."""
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns)
        expected = SCHEMA if columns is None else pa.schema([SCHEMA.field(c) for c in columns])
        if not table.schema.equals(expected):
            raise EventError(f"expected the columns {', '.join(expected.names)}")
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"expected a Parquet file: {error}") from error
    return table


def read(store: ObjectStore, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of all files, without those of erased installs; `install` must be read."""
    tables = [parse(EMPTY, columns)]
    for name in store.names(FOLDER):
        with naming_file(name):
            tables.append(parse(store.get(name), columns))
    return without_erased(pa.concat_tables(tables), Tombstones(store))


def without_erased(table: pa.Table, erased: Tombstones) -> pa.Table:
    """Return the rows of installs that were not erased."""
    if not erased:
        return table
    gone = [install for install in pc.unique(table["install"]).to_pylist() if install in erased]
    return table.filter(pc.invert(pc.is_in(table["install"], pa.array(gone, pa.string()))))


def accounted(store: ObjectStore) -> dict[str, int]:
    """Return up to which sequence number all events of each install are accounted for."""
    if not store.names(FOLDER):
        return {}
    return accounted_in(read(store, ["install", "seq", "item"]))


def accounted_in(table: pa.Table) -> dict[str, int]:
    """Return what `accounted` does, of a table that was read."""
    marks = table.filter(pc.is_null(table["item"])).group_by("install").aggregate([("seq", "max")])
    return dict(zip(marks["install"].to_pylist(), marks["seq_max"].to_pylist(), strict=True))
