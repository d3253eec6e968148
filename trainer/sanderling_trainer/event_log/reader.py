"""The event log: what the collector's files hold, each event once. Refuses to know servers and models.

Segments, and the daily Parquet that replaces them, may be read in any order and may repeat lines: the log is the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sanderling.errors import EventError
from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome
from sanderling_trainer.event_log import daily_parquet, segment_format
from sanderling_trainer.event_log.deduplication import Deduplicator, Seen
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, ObjectStore, open_store
from sanderling_trainer.event_log.partitions import MOST_BYTES, Parts
from sanderling_trainer.event_log.tombstones import Erased


@dataclass(frozen=True)
class EventLog:
    """Every event once. `events` maps (install, user pseudonym) to its events in the order of their numbers.

    `time` is each event's wall time in ms since 1970, corrected for the device's clock. `conflicts` counts ids and
    numbers of one install that were used for two different events; `doubled` names those installs: two devices go by
    one name, from a copied disk, or one that went back to an older state. `missing` counts numbers that neither arrived
    nor were declared lost; `incomplete` names the installs that have such.
    """

    events: dict[tuple[str, str], list[Event]] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    time: dict[str, int] = field(default_factory=dict)
    received: int = 0
    duplicates: int = 0
    conflicts: int = 0
    missing: int = 0
    incomplete: frozenset[str] = frozenset()
    doubled: frozenset[str] = frozenset()

    def decisions(self) -> int:
        """Return how many decisions there are."""
        return self._count(Decision)

    def outcomes(self) -> int:
        """Return how many outcomes there are."""
        return self._count(Outcome)

    def observations(self) -> int:
        """Return how many observations there are."""
        return self._count(Observation)

    def _count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for events in self.events.values() for event in events)


def read_segments(store: str) -> EventLog:
    """Read all events under a local folder or an object store's URL, without those of erased installs.

    Raises `EventError` when a file is damaged, or goes away while it is read.
    """
    place = open_store(store, JOB_TIMEOUT)
    gathering = gather(place)
    return _log(_kept(gathering, Erased(place)))


def read_parts(store: str, most_bytes: int = MOST_BYTES) -> Iterator[EventLog]:
    """Read as `read_segments` does, in parts: each is the log of a range of installs, and all that there is of them.

    The events in memory take about `most_bytes`; more than that are set down in the temporary folder. Only an install
    that has more alone is one part all the same.
    """
    place = open_store(store, JOB_TIMEOUT)
    with Parts(most_bytes) as parts:
        _gather(place, parts)
        erased = Erased(place)
        for gathering in parts:
            yield _log(_kept(gathering, erased))


def gather(store: ObjectStore) -> Deduplicator:
    """Read all lines."""
    gathering = Deduplicator()
    _gather(store, gathering)
    return gathering


def _gather(store: ObjectStore, lot: Deduplicator | Parts) -> None:
    """Read all lines; segments are listed before the daily files, so that a compaction meanwhile hides nothing."""
    segments = [
        name
        for name in store.names(segment_format.SEGMENTS)
        if name.endswith(segment_format.SUFFIX)
    ]
    present, replaced = frozenset(segments), set[str]()
    for name in store.names(daily_parquet.FOLDER):
        with named(name):
            file = daily_parquet.opened(store.get(name))
            replaced |= present.intersection(daily_parquet.replaces(file))
            for row in daily_parquet.lines(file):
                lot.add(*row)
    for name in segments:
        if name not in replaced:
            add_segment(lot, store, name)


def add_segment(lot: Deduplicator | Parts, store: ObjectStore, name: str) -> None:
    """Read the lines of one segment."""
    with named(name):
        for row in segment_format.unpack(store.get(name)):
            found = segment_format.parse(row)
            lot.add(bytes(found.event), found.received_at, found.sent_at)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Add the name of the file to what went wrong in it."""
    try:
        yield
    except FileNotFoundError as error:
        raise EventError(
            f"{name}: it went away; read again when compaction or erasure has ended"
        ) from error
    except EventError as error:
        raise EventError(f"{name}: {error}: restore the file from a copy") from error


def _kept(gathering: Deduplicator, erased: Erased) -> list[Seen]:
    return [seen for seen in gathering if seen.event.install not in erased]


def _log(found: list[Seen]) -> EventLog:
    """Make the log of bodies in their order: the first under an install's id counts."""
    kept: dict[tuple[str, str], Seen] = {}
    conflicts, doubled = 0, set()
    for seen in found:
        first = kept.setdefault((seen.event.install, seen.event.id), seen)
        if first is not seen:
            conflicts += seen.times
            doubled.add(first.event.install)
    events: dict[tuple[str, str], list[Event]] = defaultdict(list)
    losses = []
    for seen in sorted(kept.values(), key=lambda seen: seen.event.seq):
        if isinstance(seen.event, Loss):
            losses.append(seen.event)
        else:
            events[seen.event.install, seen.event.user].append(seen.event)
    gaps, reused = _completeness([seen.event for seen in kept.values()])
    return EventLog(
        events=dict(events),
        losses=losses,
        time={id: seen.time() for (_, id), seen in kept.items()},
        received=sum(seen.times for seen in found),
        duplicates=sum(seen.times - 1 for seen in kept.values()),
        conflicts=conflicts + reused.total(),
        missing=sum(gaps.values()),
        incomplete=frozenset(gaps),
        doubled=frozenset(doubled.union(reused)),
    )


def _completeness(events: list[Event]) -> tuple[dict[str, int], Counter[str]]:
    """Return each install's unexplained gaps, and how often it used a number again; only those that have such.

    A number that was declared lost and came all the same counts once.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    named: dict[str, set[int]] = defaultdict(set)
    declared: dict[str, int] = defaultdict(int)
    reused: Counter[str] = Counter()
    for event in events:
        if event.seq in numbers[event.install]:
            reused[event.install] += 1
        numbers[event.install].add(event.seq)
        if isinstance(event, Loss):
            named[event.install].update(event.lost_seqs or ())
            unnamed = (
                event.decisions + event.outcomes + event.observations - len(event.lost_seqs or ())
            )
            declared[event.install] += max(0, unnamed)
    gaps = {
        install: max(seen) - len(seen | named[install]) - declared[install]
        for install, seen in numbers.items()
    }
    return {install: gap for install, gap in gaps.items() if gap > 0}, reused
