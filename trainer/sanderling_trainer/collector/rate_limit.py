"""Limits the events per second of each install."""

from __future__ import annotations

from collections.abc import Mapping

from sanderling.runtime.clock import Clock
from sanderling.runtime.lru_cache import LruCache
from sanderling_trainer.collector.limits import Limits, RefusalError

MAX_REMEMBERED = 100_000
"""Installs, and files in the lookup caches, that are kept in memory: those used last."""


class RateLimit:
    """A generic cell rate algorithm: the time at which each install has paid for all its events.

    A batch passes whole if its install has no debt, and may leave a debt, so that a device can send
    batches larger than its burst.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._paid_at_s: LruCache[str, float] = LruCache(MAX_REMEMBERED)

    def charge(self, events_of: Mapping[str, int]) -> None:
        """Charge events to each install; if one is in debt charge none and raise `RefusalError`."""
        now_s = self._clock.mono_ms() / 1000
        earliest_s = now_s - self._limits.burst / self._limits.events_s
        paid_at_s = {}
        for install, events in events_of.items():
            paid_s = max(earliest_s, self._paid_at_s.get(install) or earliest_s)
            if paid_s > now_s:
                reason = f"expected at most {self._limits.events_s:g} events/s of an install"
                raise RefusalError(429, reason, paid_s - now_s)
            paid_at_s[install] = paid_s + events / self._limits.events_s

        for install, paid_s in paid_at_s.items():
            self._paid_at_s.put(install, paid_s)

    def refund(self, events_of: Mapping[str, int]) -> None:
        """Undo `charge` for a batch that was not stored."""
        for install, events in events_of.items():
            paid_s = self._paid_at_s.get(install)
            if paid_s is not None:
                self._paid_at_s.put(install, paid_s - events / self._limits.events_s)
