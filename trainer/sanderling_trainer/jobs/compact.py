"""The compaction job: replaces the segments of past days by Parquet files; the log stays the same.

A Parquet file is durable before the segments that it replaces are deleted, and names them. So a job
that was cut off is finished by the next one, and meanwhile readers count nothing twice. The job
also removes lines of erased installs that a slow collector wrote after their erasure: from
segments, and from the dead letters since the last jobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sanderling.runtime.clock import Clock, uuid7
from sanderling_trainer.event_log import daily_parquet
from sanderling_trainer.event_log.deduplication import Deduplicator
from sanderling_trainer.event_log.file_errors import naming_file
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.partitions import MAX_BYTES
from sanderling_trainer.event_log.reader import add_segment
from sanderling_trainer.event_log.segment_format import DEAD, SEGMENTS, SUFFIX, utc_day
from sanderling_trainer.event_log.tombstones import Tombstones
from sanderling_trainer.jobs.lease import Lease, exclusive_job
from sanderling_trainer.jobs.purge import purge_lines

PART_FILE_AGE_S = 3600.0
"""A half-written file that is older belongs to a process that has died."""
LATE_DAYS = 7
"""Dead letters of so many days are searched for erased installs."""


@dataclass
class CompactionResult:
    """What a compaction did."""

    files: int = 0
    """Daily files written."""
    segments: int = 0
    """Segments replaced."""
    events: int = 0
    """Different events in the new files."""


def compact(store: ObjectStore, clock: Clock, max_bytes: int = MAX_BYTES) -> CompactionResult:
    """Replace the segments of all days before today (UTC).

    The events of a file take about `max_bytes` in memory.

    Raises `BusyError` when another job works on the store.
    """
    with exclusive_job(store, clock, "compact") as lease:
        store.clean(PART_FILE_AGE_S)
        return _Compaction(store, clock, max_bytes, lease).run()


class _Compaction:
    def __init__(self, store: ObjectStore, clock: Clock, max_bytes: int, lease: Lease) -> None:
        self._store = store
        self._clock = clock
        self._max_bytes = max_bytes
        self._lease = lease
        self._erased = Tombstones(store)
        self._result = CompactionResult()

    def run(self) -> CompactionResult:
        today = utc_day(self._clock)
        segments_of = self._segments_by_day()
        for day in sorted(day for day in segments_of if day < today):
            self._compact_day(day, segments_of[day])

        if self._erased:
            self._purge_dead_letters(min([utc_day(self._clock, LATE_DAYS), *segments_of]))
        return self._result

    def _segments_by_day(self) -> dict[str, list[str]]:
        """Return each day's segments; delete those that a job replaced and died before deleting."""
        days: dict[str, list[str]] = defaultdict(list)
        for name in self._store.names(SEGMENTS):
            if name.endswith(SUFFIX):
                days[name.split("/")[1]].append(name)

        # A daily file replaces segments of its own day, so days without segments need no look at
        # their files.
        for day, segments in days.items():
            replaced: set[str] = set()
            for name in self._store.names(f"{daily_parquet.FOLDER}/{day}"):
                self._lease.renew()
                with naming_file(name):
                    file = daily_parquet.open_file(self._store.get(name))
                    replaced.update(daily_parquet.replaced_segments(file))
            self._delete(replaced.intersection(segments))
            days[day] = [segment for segment in segments if segment not in replaced]
        return days

    def _compact_day(self, day: str, segments: Sequence[str]) -> None:
        events = Deduplicator()
        group: list[str] = []
        for name in segments:
            self._lease.renew()
            add_segment(events, self._store, name)
            group.append(name)
            if events.memory_bytes >= self._max_bytes:
                self._replace(day, events, group)
                events = Deduplicator()
                group = []
        if group:
            self._replace(day, events, group)

    def _replace(self, day: str, events: Deduplicator, segments: Sequence[str]) -> None:
        kept = [received for received in events if received.event.install not in self._erased]
        id = uuid7(self._clock.wall_ms())
        name = f"{daily_parquet.FOLDER}/{day}/{id}{daily_parquet.SUFFIX}"
        self._lease.create(name, daily_parquet.pack(kept, segments))
        self._delete(segments)

        self._result.files += 1
        self._result.segments += len(segments)
        self._result.events += len(kept)

    def _delete(self, segments: Sequence[str] | set[str]) -> None:
        for segment in segments:
            self._lease.renew()
            self._store.delete(segment)

    def _purge_dead_letters(self, since_day: str) -> None:
        for name in self._store.names(DEAD):
            if name.endswith(SUFFIX) and name.split("/")[1] >= since_day:
                purge_lines(self._store, name, self._erased.sent_by_erased, self._lease)
