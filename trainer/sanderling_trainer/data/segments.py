"""Event segments: how the collector's files look, and how the lab reads them, each event once.

Refuses to know servers and models. A segment is an immutable zstd file of JSON lines: {"received_at", "sent_at",
"event"}, in wall milliseconds since 1970.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zstandard

from sanderling.contract import events as wire
from sanderling.contract.events import Decision, Event, Loss, Observation, Outcome
from sanderling.errors import EventError

FOLDER = "segments"
SUFFIX = ".jsonl.zst"


class _Line(msgspec.Struct, frozen=True):
    received_at: int
    sent_at: int | None
    event: msgspec.Raw


_decoder = msgspec.json.Decoder(_Line)


def line(event: bytes, received_at: int, sent_at: int | None) -> bytes:
    """Return one line of a segment around the bytes of an encoded event."""
    return b'{"received_at":%d,"sent_at":%s,"event":%s}' % (received_at, msgspec.json.encode(sent_at), event)


@dataclass(frozen=True)
class EventLog:
    """Every event once. `events` maps (install, user pseudonym) to its events in the order of their numbers.

    `time` is each event's wall time in ms since 1970, corrected for the device's clock. `conflicts` counts ids, and
    numbers of one install, that were used for two different events. `missing` counts numbers that neither arrived
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
    """Read all segments under a local folder or an object store's URL; the order of segments does not matter.

    Raises `EventError` when a segment is damaged. Segments and lines may repeat.
    """
    reader = _Reader()
    for name, data in _segments(store):
        try:
            for found in _lines(data):
                reader.add(found)
        except (zstandard.ZstdError, msgspec.MsgspecError, EventError) as error:
            raise EventError(f"{name}: expected a whole segment: {error}: restore it from a copy") from error
    return reader.log()


class _Reader:
    """Takes lines in any order; the first body of an id wins."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.kept: list[Event] = []
        self.time: dict[str, int] = {}
        self.received = self.duplicates = self.conflicts = 0

    def add(self, found: _Line) -> None:
        self.received += 1
        body = bytes(found.event)
        event = wire.decode(body)
        known = self.bodies.setdefault(event.id, body)
        if known is not body:
            self.duplicates += known == body
            self.conflicts += known != body
            return
        self.kept.append(event)
        sent_at = found.received_at if found.sent_at is None else found.sent_at
        self.time[event.id] = found.received_at - (sent_at - event.clock.wall)

    def log(self) -> EventLog:
        events: dict[tuple[str, str], list[Event]] = defaultdict(list)
        losses = []
        for event in sorted(self.kept, key=lambda event: event.seq):
            if isinstance(event, Loss):
                losses.append(event)
            else:
                events[event.install, event.user].append(event)
        gaps, reused = _completeness(self.kept)
        return EventLog(
            events=dict(events),
            losses=losses,
            time=self.time,
            received=self.received,
            duplicates=self.duplicates,
            conflicts=self.conflicts + reused,
            missing=sum(gaps.values()),
            incomplete=frozenset(gaps),
        )


def _completeness(events: list[Event]) -> tuple[dict[str, int], int]:
    """Return each install's unexplained gaps, where there are any, and how many numbers were used twice."""
    numbers: dict[str, set[int]] = defaultdict(set)
    declared: dict[str, int] = defaultdict(int)
    reused = 0
    for event in events:
        reused += event.seq in numbers[event.install]
        numbers[event.install].add(event.seq)
        if isinstance(event, Loss):
            declared[event.install] += event.decisions + event.outcomes + event.observations
    gaps = {install: max(seen) - len(seen) - declared[install] for install, seen in numbers.items()}
    return {install: gap for install, gap in gaps.items() if gap > 0}, reused


def _segments(store: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every segment in the order of their names."""
    if "://" not in store:
        folder = Path(store)
        for path in sorted((folder / FOLDER).glob(f"*/*{SUFFIX}")):
            yield str(path.relative_to(folder)), path.read_bytes()
        return
    from obstore.store import from_url

    remote = from_url(store)
    for name in sorted(entry["path"] for page in remote.list(prefix=FOLDER) for entry in page):
        if name.endswith(SUFFIX):
            yield name, bytes(remote.get(name).bytes())


def _lines(data: bytes) -> Iterator[_Line]:
    whole = zstandard.ZstdDecompressor().decompressobj()
    content = whole.decompress(data)
    if not whole.eof:
        raise EventError("the zstd frame is cut off")
    for row in io.BytesIO(content):
        yield _decoder.decode(row)
