"""Reads the event log: every event once, in order, with missing and conflicting ones counted.

Segments, and the daily Parquet files that replace them, may be read in any order and may repeat
lines: the log is the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome
from sanderling_trainer.event_log import daily_parquet, history_files, segment_format
from sanderling_trainer.event_log.deduplication import (
    ANY_TIME,
    Deduplicator,
    PossibleTimes,
    ReceivedEvent,
)
from sanderling_trainer.event_log.file_errors import naming_file
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, ObjectStore, open_store
from sanderling_trainer.event_log.partitions import MAX_BYTES, Partitions
from sanderling_trainer.event_log.tombstones import Tombstones


@dataclass(frozen=True)
class EventLog:
    """Every event once, and what was wrong with the rest."""

    events: dict[tuple[str, str], list[Event]] = field(default_factory=dict)
    """The events of each (install, user pseudonym), in the order of their sequence numbers."""
    losses: list[Loss] = field(default_factory=list)
    """What devices declared as lost."""
    time: dict[str, int] = field(default_factory=dict)
    """Wall ms since 1970 of each event by its id, corrected for errors of the device's clock."""
    received: int = 0
    """Lines of all segments, repeated ones included."""
    duplicates: int = 0
    """Lines that repeat an event."""
    conflicts: int = 0
    """Ids and sequence numbers that one install used for two different events."""
    missing: int = 0
    """Sequence numbers that neither arrived nor were declared lost."""
    incomplete: frozenset[str] = frozenset()
    """Installs with missing events."""
    cloned: frozenset[str] = frozenset()
    """Installs with conflicts: devices share an identity, from a copied or restored disk."""
    last_seq: dict[str, int] = field(default_factory=dict)
    """The highest sequence number of each install that is neither incomplete nor cloned."""
    misdated: int = 0
    """Events whose corrected time is impossible; they have the time of their receipt."""

    def decisions(self) -> int:
        """Return the number of decisions."""
        return self._count(Decision)

    def outcomes(self) -> int:
        """Return the number of outcomes."""
        return self._count(Outcome)

    def observations(self) -> int:
        """Return the number of observations."""
        return self._count(Observation)

    def _count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for events in self.events.values() for event in events)


def read_segments(store: str) -> EventLog:
    """Read all events of a local folder or an object store's URL, without those of erased installs.

    Raises `EventError` when a file is damaged, or goes away while it is read.
    """
    place = open_store(store, JOB_TIMEOUT)
    events = read_events(place)
    accounted = history_files.accounted(place)
    return build_log(_without_erased(events, Tombstones(place)), accounted)


def read_partitions(
    store: str, max_bytes: int = MAX_BYTES, times: PossibleTimes = ANY_TIME
) -> Iterator[EventLog]:
    """Read as `read_segments` does, in partitions: each is the whole log of a range of installs.

    The events in memory take about `max_bytes`; beyond that they are written to the temporary
    folder. An install that has more by itself is still one partition.
    """
    place = open_store(store, JOB_TIMEOUT)
    with Partitions(max_bytes) as partitions:
        _read_into(partitions, place)
        accounted = history_files.accounted(place)
        erased = Tombstones(place)
        for events in partitions:
            yield build_log(_without_erased(events, erased), accounted, times)


def read_events(store: ObjectStore) -> Deduplicator:
    """Read the events of all files, erased installs included."""
    events = Deduplicator()
    _read_into(events, store)
    return events


def _read_into(target: Deduplicator | Partitions, store: ObjectStore) -> None:
    # Segments are listed before the daily files. In the other order a compaction between the two
    # could hide events: its daily file would not be listed yet, and its segments not any more.
    segments = [
        name
        for name in store.names(segment_format.SEGMENTS)
        if name.endswith(segment_format.SUFFIX)
    ]
    listed = frozenset(segments)
    replaced: set[str] = set()
    for name in store.names(daily_parquet.FOLDER):
        with naming_file(name):
            file = daily_parquet.open_file(store.get(name))
            replaced |= listed.intersection(daily_parquet.replaced_segments(file))
            for row in daily_parquet.rows(file):
                target.add(*row)

    for name in segments:
        if name not in replaced:
            add_segment(target, store, name)


def add_segment(target: Deduplicator | Partitions, store: ObjectStore, name: str) -> None:
    """Add the lines of a segment; raise `EventError` with its name if it is damaged or absent."""
    with naming_file(name):
        for row in segment_format.unpack(store.get(name)):
            line = segment_format.decode_line(row)
            target.add(bytes(line.event), line.received_at, line.sent_at)


def _without_erased(events: Deduplicator, erased: Tombstones) -> list[ReceivedEvent]:
    return [received for received in events if received.event.install not in erased]


def build_log(
    received_events: list[ReceivedEvent],
    accounted: Mapping[str, int] | None = None,
    times: PossibleTimes = ANY_TIME,
) -> EventLog:
    """Build the log of events in the order of receipt; of those with one id the first counts.

    Numbers up to `accounted` of an install are not missing: their files may have been deleted.
    """
    first_of: dict[tuple[str, str], ReceivedEvent] = {}
    conflicts = 0
    cloned: set[str] = set()
    for received in received_events:
        first = first_of.setdefault((received.event.install, received.event.id), received)
        if first is not received:
            conflicts += received.times
            cloned.add(first.event.install)

    events: dict[tuple[str, str], list[Event]] = defaultdict(list)
    losses: list[Loss] = []
    for received in sorted(first_of.values(), key=lambda received: received.event.seq):
        event = received.event
        if isinstance(event, Loss):
            losses.append(event)
        else:
            events[event.install, event.user].append(event)

    accounted = accounted or {}
    gaps, reused = _completeness([received.event for received in first_of.values()], accounted)
    cloned |= reused.keys()
    last_seq: dict[str, int] = {}
    for event in (received.event for received in first_of.values()):
        if event.install not in gaps and event.install not in cloned:
            known = last_seq.get(event.install, accounted.get(event.install, 0))
            last_seq[event.install] = max(event.seq, known)

    time = {id: received.corrected_time(times) for (_, id), received in first_of.items()}
    return EventLog(
        events=dict(events),
        losses=losses,
        time=time,
        received=sum(received.times for received in received_events),
        duplicates=sum(received.times - 1 for received in first_of.values()),
        conflicts=conflicts + reused.total(),
        missing=sum(gaps.values()),
        incomplete=frozenset(gaps),
        cloned=frozenset(cloned),
        last_seq=last_seq,
        misdated=sum(not received.has_possible_time(times) for received in first_of.values()),
    )


def _completeness(
    events: list[Event], accounted: Mapping[str, int]
) -> tuple[dict[str, int], Counter[str]]:
    """Return each install's missing events and reused sequence numbers, without zeros."""
    arrived: dict[str, set[int]] = defaultdict(set)
    declared: dict[str, set[int]] = defaultdict(set)
    declared_unnumbered: Counter[str] = Counter()
    reused: Counter[str] = Counter()
    for event in events:
        if event.seq in arrived[event.install]:
            reused[event.install] += 1
        arrived[event.install].add(event.seq)
        # A loss declares numbers below its own.
        if isinstance(event, Loss) and event.seq > accounted.get(event.install, 0):
            lost_seqs = event.lost_seqs or ()
            lost = event.decisions + event.outcomes + event.observations
            declared[event.install].update(lost_seqs)
            declared_unnumbered[event.install] += max(0, lost - len(lost_seqs))

    gaps: dict[str, int] = {}
    for install, seqs in arrived.items():
        known = accounted.get(install, 0)
        # A number that was declared lost and arrived all the same is in both sets, and counts once.
        found = sum(seq > known for seq in seqs | declared[install])
        gap = max(0, max(seqs) - known) - found - declared_unnumbered[install]
        if gap > 0:
            gaps[install] = gap
    return gaps, reused
