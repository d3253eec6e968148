"""The outbox's data: write requests, stored events, and rows of the event table."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass

from sanderling.events.pending_decision import PendingDecision
from sanderling.events.schema import Event

QueuedEvent = Event | PendingDecision


@dataclass(frozen=True)
class StoredEvent:
    """One event that waits to be sent: its number, its id, and its encoded line."""

    seq: int
    id: str
    line: bytes


@dataclass(frozen=True)
class WriteRequest:
    """Events and states that are written atomically."""

    events: Sequence[QueuedEvent]
    states: Mapping[str, bytes]
    """By key; an empty value deletes the state."""
    install: str | None = None
    """Where given, the request is refused under any other install id."""
    done: Future[None] | None = None
    """Set once the events are on disk, or never will be; None if no caller waits."""

    def concerns(self, pseudonyms: Set[str], keys: Set[str]) -> bool:
        """Return whether it holds events of one of these users, or only a state of one of them."""
        if not self.events:
            return not keys.isdisjoint(self.states)
        return any(getattr(event, "user", "") in pseudonyms for event in self.events)


@dataclass(frozen=True)
class EventRow:
    """A row of the table `event`, texts as bytes: a flipped bit may change even a value's type."""

    seq: int
    id: bytes | None
    type: str
    """The wire's `type`, such as decision."""
    level: int
    """How many passes of shedding the row has survived."""
    line: bytes | None
    crc: object

    def intact(self) -> StoredEvent | None:
        """Return the event as it was written, or None where the row is damaged."""
        if self.id is None or self.line is None:
            return None
        if zlib.crc32(self.line, zlib.crc32(self.id)) != self.crc:
            return None
        return StoredEvent(self.seq, self.id.decode(), self.line)


def checksum(id: str, line: bytes) -> int:
    """Return the CRC-32 that a row carries over its id and its line."""
    return zlib.crc32(line, zlib.crc32(id.encode()))
