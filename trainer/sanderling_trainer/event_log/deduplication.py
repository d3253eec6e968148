"""Gathering lines: equal ones become one, whatever their order. Reading and compaction both rest on it.

Refuses to know files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.runtime.clock import OLDEST_MS

EVENT_BYTES, PART_BYTES = 1000, 128


@dataclass(slots=True)
class Seen:
    """One body of an event: when it was first received, with its sender's clock then, and how often it came."""

    event: Event
    body: bytes
    received_at: int
    sent_at: int | None
    times: int

    def order(self) -> tuple[int, bool, int, bytes]:
        """Return the key of the order that is the same in whatever order lines are read: first come, first."""
        return self.received_at, self.sent_at is None, self.sent_at or 0, self.body

    def size(self) -> int:
        """Return about how many bytes of memory this takes: a slot of 60 bytes on the wire is an object of 130."""
        parts = sum(
            len(getattr(self.event, name, None) or ()) for name in ("slate", "caps", "lost_seqs")
        )
        return EVENT_BYTES + 2 * len(self.body) + PART_BYTES * parts

    def time(self) -> int:
        """Return the event's wall ms since 1970, corrected for the device's clock.

        Return when it was received where the corrected time is later than that or before `OLDEST_MS`:
        then the clock was set between the event and its sending.
        """
        sent_at = self.received_at if self.sent_at is None else self.sent_at
        corrected = self.received_at - sent_at + self.event.clock.wall
        return corrected if OLDEST_MS <= corrected <= self.received_at else self.received_at


class Deduplicator:
    """Every different body once. `size` is about what they take in memory, decoded, in bytes."""

    def __init__(self) -> None:
        self._bodies: dict[bytes, Seen] = {}
        self.size = 0

    def add(self, body: bytes, received_at: int, sent_at: int | None, times: int = 1) -> None:
        """Take one line; raise `EventError` when its body is no event."""
        known = self._bodies.get(body)
        if known is None:
            known = self._bodies[body] = Seen(codec.decode(body), body, received_at, sent_at, times)
            self.size += known.size()
            return
        known.times += times
        if (received_at, sent_at is None, sent_at or 0) < known.order()[:3]:
            known.received_at, known.sent_at = received_at, sent_at

    def __iter__(self) -> Iterator[Seen]:
        return iter(sorted(self._bodies.values(), key=Seen.order))
