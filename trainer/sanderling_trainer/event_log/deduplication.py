"""Deduplication: lines with the same event body become one, in whatever order they are read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.runtime.clock import OLDEST_MS

# Memory of a decoded event, measured: an entry of a list is about 60 bytes on the wire and 130 as
# an object.
EVENT_OVERHEAD_BYTES = 1000
LIST_ENTRY_BYTES = 128
LIST_FIELDS = ("slate", "caps", "lost_seqs")


@dataclass(frozen=True)
class PossibleTimes:
    """The range in which events can have happened, in wall ms since 1970."""

    oldest_ms: int = OLDEST_MS

    newest_ms: int = sys.maxsize


ANY_TIME = PossibleTimes()


@dataclass(slots=True)
class ReceivedEvent:
    """One event body, when it was first received, and how often."""

    event: Event
    body: bytes
    received_at: int
    """Wall ms since 1970 on the collector, of the first receipt."""
    sent_at: int | None
    """Wall ms since 1970 on the device, when it sent that request; None if it did not say."""
    times: int

    def sort_key(self) -> tuple[int, bool, int, bytes]:
        """Return a key that orders events by receipt, in whatever order lines are read."""
        return self.received_at, self.sent_at is None, self.sent_at or 0, self.body

    def memory_bytes(self) -> int:
        """Return about how many bytes of memory this takes."""
        entries = sum(len(getattr(self.event, name, None) or ()) for name in LIST_FIELDS)
        return EVENT_OVERHEAD_BYTES + 2 * len(self.body) + LIST_ENTRY_BYTES * entries

    def corrected_time(self, possible: PossibleTimes = ANY_TIME) -> int:
        """Return the event's wall ms since 1970, corrected for the error of the device's clock.

        The correction assumes that the clock was not set between the event and its sending. Where
        the result is impossible, later than the receipt or out of `possible`, it was: then return
        the time of receipt, which a collector's clock may have put later than `possible` ends.
        """
        received_at = min(self.received_at, possible.newest_ms)
        return self._corrected() if self.has_possible_time(possible) else received_at

    def has_possible_time(self, possible: PossibleTimes) -> bool:
        """Return whether the corrected time can be true."""
        newest = min(self.received_at, possible.newest_ms)
        return possible.oldest_ms <= self._corrected() <= newest

    def _corrected(self) -> int:
        sent_at = self.received_at if self.sent_at is None else self.sent_at
        return self.received_at - sent_at + self.event.clock.wall


class Deduplicator:
    """Holds each different body once; iterating yields them in the order of their receipt."""

    def __init__(self) -> None:
        self._bodies: dict[bytes, ReceivedEvent] = {}
        self.memory_bytes = 0

    def add(self, body: bytes, received_at: int, sent_at: int | None, times: int = 1) -> None:
        """Add one line; raise `EventError` when its body is not an event."""
        known = self._bodies.get(body)
        if known is None:
            known = ReceivedEvent(codec.decode(body), body, received_at, sent_at, times)
            self._bodies[body] = known
            self.memory_bytes += known.memory_bytes()
            return

        known.times += times
        if (received_at, sent_at is None, sent_at or 0) < known.sort_key()[:3]:
            known.received_at, known.sent_at = received_at, sent_at

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return iter(sorted(self._bodies.values(), key=ReceivedEvent.sort_key))
