"""Writing a file anew without the lines of erased installs. Refuses to know when and why."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from sanderling_trainer.event_log import daily_parquet, segment_format
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.reader import named
from sanderling_trainer.jobs.lease import Lease

ShouldPurge = Callable[[bytes], bool]


def sweep_lines(store: ObjectStore, name: str, goes: ShouldPurge, lease: Lease) -> int:
    """Remove lines from a segment or a file of dead letters, and the file when none is left; return how many go.

    Raises `BusyError` when another job took over.
    """
    lease.keep()
    with named(name):
        rows = segment_format.unpack(store.get(name))
    kept = [row for row in rows if not goes(row)]
    if len(kept) < len(rows):
        lease.keep()
        if kept:
            store.put(name, segment_format.pack(kept))
        else:
            store.delete(name)
        lease.check()
    return len(rows) - len(kept)


def sweep_daily(store: ObjectStore, name: str, goes: ShouldPurge, lease: Lease) -> int:
    """Remove rows from a daily file, which stays for the names of what it replaces; return how many go.

    Raises `BusyError` when another job took over.
    """
    lease.keep()
    with named(name):
        file = daily_parquet.opened(store.get(name))
        kept = pa.Table.from_batches(
            [_without(batch, goes) for batch in daily_parquet.batches(file)], file.schema_arrow
        )
    gone = file.metadata.num_rows - len(kept)
    if gone:
        lease.keep()
        store.put(name, daily_parquet.write(kept))
        lease.check()
    return gone


def _without(batch: pa.RecordBatch, goes: ShouldPurge) -> pa.RecordBatch:
    return batch.filter(
        pa.array([not goes(event) for event in batch["event"].to_pylist()], pa.bool_())
    )
