"""What was lost since the outbox was opened: counted, and kept until a stored event declares it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import Lock

from sanderling.events.pending_decision import PendingDecision
from sanderling.events.schema import Event
from sanderling.events.semantics import type_of

Dropped = Counter[tuple[str, str]]
"""Events that were never numbered: (reason, type) -> how many."""


class Losses:
    """Lost events by reason, and those of them that no stored event declares yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_reason: Counter[str] = Counter()
        self._undeclared: Dropped = Counter()

    def by_reason(self) -> dict[str, int]:
        """Return how many events were lost, by reason."""
        with self._lock:
            return dict(+self._by_reason)

    def count(self, reason: str, n_events: int) -> None:
        """Count events whose loss has been declared."""
        with self._lock:
            self._by_reason[reason] += n_events

    def drop(self, reason: str, events: Iterable[Event | PendingDecision]) -> None:
        """Count events that were never numbered; the next write is to declare them."""
        keys = [(reason, type_of(event)) for event in events]
        with self._lock:
            self._undeclared.update(keys)
            self._by_reason[reason] += len(keys)

    def undeclared(self) -> Dropped:
        """Return what is still to be declared."""
        with self._lock:
            return Counter(self._undeclared)

    def confirm_declared(self, dropped: Dropped) -> None:
        """Remove what a committed event has declared."""
        with self._lock:
            self._undeclared -= dropped

    def forget_undeclared(self) -> None:
        """Declare nothing of what was lost until now: it belongs to an identity that has ended."""
        with self._lock:
            self._undeclared.clear()
