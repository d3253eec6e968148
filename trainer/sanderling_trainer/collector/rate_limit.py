"""Limits the events per second of each install."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.limits import Limits, RefusalError

MAX_REMEMBERED = 100_000


class RateLimit:
    """A generic cell rate algorithm: the time at which each install has paid for all its events.

    A batch passes whole if its install has no debt, and may leave a debt, so that a device can send
    batches larger than its burst.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._paid_at_s: dict[str, float] = {}

    def charge(self, events_of: Mapping[str, int]) -> None:
        """Charge events to each install; if one is in debt charge none and raise `RefusalError`."""
        now_s = self._clock.mono_ms() / 1000
        for install in events_of:
            debt_s = self._paid_at_s.get(install, now_s) - now_s
            if debt_s > 0:
                reason = f"expected at most {self._limits.events_s:g} events/s of an install"
                raise RefusalError(429, reason, debt_s)

        earliest_s = now_s - self._limits.burst / self._limits.events_s
        for install, events in events_of.items():
            paid_at_s = max(earliest_s, self._paid_at_s.pop(install, earliest_s))
            self._paid_at_s[install] = paid_at_s + events / self._limits.events_s
        evict_oldest(self._paid_at_s, MAX_REMEMBERED)

    def refund(self, events_of: Mapping[str, int]) -> None:
        """Undo `charge` for a batch that was not stored."""
        for install, events in events_of.items():
            if install in self._paid_at_s:
                self._paid_at_s[install] -= events / self._limits.events_s


def evict_oldest(entries: dict[str, Any], max_entries: int) -> None:
    """Remove the oldest entries beyond `max_entries`."""
    for name in list(islice(entries, max(0, len(entries) - max_entries))):
        del entries[name]
