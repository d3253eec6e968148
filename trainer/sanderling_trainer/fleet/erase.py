"""Erasing an install: its tombstone first, then every file that mentions it is written anew without it.

Collectors ask for tombstones every few seconds, so a second pass comes after the last of them must know.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from sanderling.clock import Clock
from sanderling.errors import SanderlingError
from sanderling_trainer.data import daily, lines
from sanderling_trainer.data.marks import mentions, tombstone
from sanderling_trainer.data.segments import named
from sanderling_trainer.data.store import Store
from sanderling_trainer.fleet.known import MAX_AGE_S
from sanderling_trainer.fleet.lease import Lease, only_job

COMMIT_S = 30.0
SETTLE_S = MAX_AGE_S + COMMIT_S  # what a collector knows may be so old, and a commit may take so long


class InstallError(SanderlingError):
    """What was given is no install's id."""


@dataclass
class Erased:
    """What a job did: files written anew or deleted, and lines that are gone."""

    files: int = 0
    lines: int = 0


def erase(store: Store, install: str, clock: Clock, pause: Callable[[float], None] = time.sleep) -> Erased:
    """Remove every line that mentions an install, and refuse its uploads for ever.

    Raises `BusyError` when another job works on the store.
    """
    if not re.fullmatch("[0-9a-f]{32}", install):
        raise InstallError(f"expected an install's id of 32 hex digits, found `{install}`")
    with only_job(store, clock, "erase") as lease:
        store.put(tombstone(install), b"")
        done = Erased()
        _sweep(store, install, done, lease)
        pause(SETTLE_S)
        store.clean(COMMIT_S)
        _sweep(store, install, done, lease)
    return done


def _sweep(store: Store, install: str, done: Erased, lease: Lease) -> None:
    for name in [*store.names(lines.SEGMENTS), *store.names(lines.DEAD)]:
        with named(name):
            rows = lines.unpack(store.get(name))
        kept = [row for row in rows if not mentions(row, install)]
        if len(kept) < len(rows):
            lease.keep()
            _put_or_delete(store, name, lines.pack(kept) if kept else None)
            done.files, done.lines = done.files + 1, done.lines + len(rows) - len(kept)
    for name in store.names(daily.FOLDER):
        with named(name):
            file = daily.opened(store.get(name))
            kept = pa.Table.from_batches([_without(batch, install) for batch in daily.batches(file)], file.schema_arrow)
        gone = file.metadata.num_rows - len(kept)
        if gone:
            lease.keep()
            _put_or_delete(store, name, daily.write(kept))
            done.files, done.lines = done.files + 1, done.lines + gone


def _without(batch: pa.RecordBatch, install: str) -> pa.RecordBatch:
    return batch.filter(pa.array([not mentions(event, install) for event in batch["event"].to_pylist()], pa.bool_()))


def _put_or_delete(store: Store, name: str, data: bytes | None) -> None:
    if data is None:
        store.delete(name)
    else:
        store.put(name, data)
