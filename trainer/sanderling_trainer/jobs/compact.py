"""The compaction job: the small segments of whole days become Parquet files; what is read stays the same.

A Parquet file is durable before the segments that it replaces go, and names them: a job that was cut off is finished
by the next one, and meanwhile nobody counts anything twice. Lines of erased installs, which a slow collector may have
written after their erasure, go: from segments, and from the dead letters of the days since the last jobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sanderling.runtime.clock import Clock, uuid7
from sanderling_trainer.event_log import daily_parquet
from sanderling_trainer.event_log.deduplication import Deduplicator
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.partitions import MOST_BYTES
from sanderling_trainer.event_log.reader import add_segment, named
from sanderling_trainer.event_log.segment_format import DEAD, SEGMENTS, SUFFIX, day_of
from sanderling_trainer.event_log.tombstones import Erased
from sanderling_trainer.jobs.lease import Lease, only_job
from sanderling_trainer.jobs.purge import sweep_lines

ABANDONED_S = 3600.0
LATE_DAYS = 7


@dataclass
class Compacted:
    """What a job did: files written, segments replaced, different events in the new files."""

    files: int = 0
    segments: int = 0
    events: int = 0


def compact(store: ObjectStore, clock: Clock, most_bytes: int = MOST_BYTES) -> Compacted:
    """Replace the segments of all days before today (UTC); the events of a file take about `most_bytes` in memory.

    Raises `BusyError` when another job works on the store.
    """
    with only_job(store, clock, "compact") as lease:
        return _compact(store, clock, most_bytes, lease)


def _compact(store: ObjectStore, clock: Clock, most_bytes: int, lease: Lease) -> Compacted:
    store.clean(ABANDONED_S)
    done, erased, today, days = Compacted(), Erased(store), day_of(clock), _days(store, lease)
    for day in sorted(day for day in days if day < today):
        gathering, group = Deduplicator(), []
        for name in days[day]:
            lease.keep()
            add_segment(gathering, store, name)
            group.append(name)
            if gathering.size >= most_bytes:
                _replace(store, clock, day, gathering, group, erased, done, lease)
                gathering, group = Deduplicator(), []
        if group:
            _replace(store, clock, day, gathering, group, erased, done, lease)
    recent = min([day_of(clock, LATE_DAYS), *days])
    for name in store.names(DEAD) if erased else []:
        if name.endswith(SUFFIX) and name.split("/")[1] >= recent:
            sweep_lines(store, name, erased.sent, lease)
    return done


def _days(store: ObjectStore, lease: Lease) -> dict[str, list[str]]:
    """Return each day's segments; delete those that an earlier job replaced and did not live to delete.

    A daily file replaces segments of its own day, so that only files of days that still have some are looked at.
    """
    days: dict[str, list[str]] = defaultdict(list)
    for name in store.names(SEGMENTS):
        if name.endswith(SUFFIX):
            days[name.split("/")[1]].append(name)
    for day, segments in days.items():
        replaced: set[str] = set()
        for name in store.names(f"{daily_parquet.FOLDER}/{day}"):
            lease.keep()
            with named(name):
                replaced.update(daily_parquet.replaces(daily_parquet.opened(store.get(name))))
        for segment in replaced.intersection(segments):
            lease.keep()
            store.delete(segment)
        days[day] = [segment for segment in segments if segment not in replaced]
    return days


def _replace(
    store: ObjectStore,
    clock: Clock,
    day: str,
    gathering: Deduplicator,
    group: Sequence[str],
    erased: Erased,
    done: Compacted,
    lease: Lease,
) -> None:
    kept = [seen for seen in gathering if seen.event.install not in erased]
    lease.create(
        f"{daily_parquet.FOLDER}/{day}/{uuid7(clock.wall_ms())}{daily_parquet.SUFFIX}",
        daily_parquet.pack(kept, group),
    )
    for name in group:
        lease.keep()
        store.delete(name)
    done.files, done.segments, done.events = (
        done.files + 1,
        done.segments + len(group),
        done.events + len(kept),
    )
