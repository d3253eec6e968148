"""The export job: what devices report, as the table of interactions that `train` reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sanderling.events.schema import Event, Observation, Outcome
from sanderling.runtime import files
from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.deduplication import PossibleTimes
from sanderling_trainer.event_log.history_table import NO_DECISION, KnownHistory
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.event_log.reader import EventLog, read_partitions
from sanderling_trainer.jobs.night_log import check_events

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "timestamp": pa.int64(),
        "reward": pa.float32(),
        "kind": pa.string(),
    }
)


@dataclass
class Exported:
    """What an export wrote and left out."""

    rows: int = 0

    users: set[str] = field(default_factory=set)
    """Pseudonyms."""

    cloned: set[str] = field(default_factory=set)
    """Installs that were left out: devices share their identity, so that users are mixed."""


def export(store: str, out: Path, clock: Clock | None = None) -> Exported:
    """Write the events that changed users' states as interactions; users are pseudonyms.

    Each step of a state is one row, in the order of time for each user: observations with the
    reward 1, or -1 for the kind `dislike`, and answers to slates with their own. Answers that
    changed no state are left out, as devices do not condition on them. `out` appears whole, in
    place of an earlier one. Raises `FileNotFoundError` where there is no store, `EventError` where
    a file of it is damaged.
    """
    check_events(store)
    clock = clock or SystemClock()
    done = Exported()
    partial = files.partial_path(out)
    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for log in _logs(store, PossibleTimes(newest_ms=clock.wall_ms())):
                table = _interactions(log, done)
                done.rows += len(table)
                writer.write_table(table)
        files.replace_durably(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return done


def _logs(store: str, times: PossibleTimes) -> Iterator[EventLog]:
    """Yield all events of a store, and those of which only its history is left."""
    known = KnownHistory.of(history_files.read(open_store(store, JOB_TIMEOUT)))
    installs: set[str] = set()
    for log in read_partitions(store, times=times):
        installs.update(install for install, _ in log.events)
        yield known.restored(log)
    yield from known.others(installs)


def _interactions(log: EventLog, done: Exported) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for (install, user), events in sorted(log.events.items()):
        if install in log.cloned:
            done.cloned.add(install)
            continue
        for event in events:
            if not isinstance(event, Observation | Outcome) or not _changed_state(event):
                continue
            done.users.add(user)
            time_s = log.time.get(event.id, event.clock.wall) // 1000
            row = (user, event.item, time_s, _reward(event), event.kind)
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return pa.table(columns, SCHEMA)


def _changed_state(event: Event) -> bool:
    return not isinstance(event, Outcome) or event.updates_state


def _reward(event: Observation | Outcome) -> float:
    """Return an outcome's reward; where it is not known, the sign that histories learn from."""
    if isinstance(event, Outcome) and event.decision != NO_DECISION:
        return event.value
    return -1.0 if event.kind == "dislike" else 1.0
