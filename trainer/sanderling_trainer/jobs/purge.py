"""Rewrites files of the log without certain lines."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sanderling_trainer.event_log import daily_parquet, history_files, segment_format
from sanderling_trainer.event_log.file_errors import naming_file
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.tombstones import Tombstones
from sanderling_trainer.jobs.lease import Lease

ShouldPurge = Callable[[bytes], bool]
"""Returns whether a line, or the event of a row, is to be removed."""


def purge_lines(store: ObjectStore, name: str, should_purge: ShouldPurge, lease: Lease) -> int:
    """Remove lines from a segment or a file of dead letters, and the file when none is left.

    Returns how many lines were removed. Raises `BusyError` when another job took over.
    """
    lease.renew()
    with naming_file(name):
        lines = segment_format.unpack(store.get(name))
    kept = [line for line in lines if not should_purge(line)]
    if len(kept) < len(lines):
        lease.renew()
        if kept:
            store.put(name, segment_format.pack(kept))
        else:
            store.delete(name)
        lease.check_held()
    return len(lines) - len(kept)


def purge_daily(store: ObjectStore, name: str, should_purge: ShouldPurge, lease: Lease) -> int:
    """Remove rows from a daily file; an empty one stays, with the names of replaced segments.

    Returns how many rows were removed. Raises `BusyError` when another job took over.
    """
    lease.renew()
    with naming_file(name):
        file = daily_parquet.open_file(store.get(name))
        batches = [_kept_rows(batch, should_purge) for batch in daily_parquet.record_batches(file)]
        kept = pa.Table.from_batches(batches, file.schema_arrow)
    removed = file.metadata.num_rows - len(kept)
    if removed:
        lease.renew()
        store.put(name, daily_parquet.to_bytes(kept))
        lease.check_held()
    return removed


def purge_history(store: ObjectStore, name: str, install: str, lease: Lease) -> int:
    """Remove the rows of erased installs, and those that mention this one, from a history file.

    Returns how many rows were removed. Raises `BusyError` when another job took over.
    """
    lease.renew()
    with naming_file(name):
        table = history_files.parse(store.get(name))
    kept = history_files.without_erased(table, Tombstones(store))
    for column in ("user", "item", "kind"):
        mentioned = pc.fill_null(pc.match_substring(kept[column], install), False)
        kept = kept.filter(pc.invert(mentioned))

    removed = len(table) - len(kept)
    if removed:
        lease.renew()
        store.put(name, daily_parquet.to_bytes(kept))
        lease.check_held()
    return removed


def _kept_rows(batch: pa.RecordBatch, should_purge: ShouldPurge) -> pa.RecordBatch:
    is_kept = [not should_purge(event) for event in batch["event"].to_pylist()]
    return batch.filter(pa.array(is_kept, pa.bool_()))
