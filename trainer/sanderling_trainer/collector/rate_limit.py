"""Limits events or other things per second, for each install or token."""

from __future__ import annotations

from collections.abc import Mapping

from sanderling.runtime.clock import Clock
from sanderling.runtime.lru_cache import LruCache
from sanderling_trainer.collector.limits import RefusalError

MAX_REMEMBERED = 100_000
"""Installs, and files in the lookup caches, that are kept in memory: those used last."""


class RateLimit:
    """A generic cell rate algorithm: the time at which each key has paid for all its things.

    A batch passes whole if its key has no debt, and may leave a debt, so that a device can send
    batches larger than its burst.

    per_s: things per second of a key, after a `burst` of them.
    of: what the things are, for the message of a refusal.
    """

    def __init__(self, clock: Clock, per_s: float, burst: float, of: str) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst_s = burst / per_s
        self._of = of
        self._paid_at_s: LruCache[str, float] = LruCache(MAX_REMEMBERED)

    def charge(self, amounts: Mapping[str, int]) -> None:
        """Charge each key; if one is in debt charge none and raise `RefusalError`."""
        now_s = self._clock.mono_ms() / 1000
        earliest_s = now_s - self._burst_s
        paid_at_s = {}
        for key, amount in amounts.items():
            paid_s = max(earliest_s, self._paid_at_s.get(key) or earliest_s)
            if paid_s > now_s:
                raise RefusalError(429, f"expected at most {self._of}", paid_s - now_s)
            paid_at_s[key] = paid_s + amount / self._per_s

        for key, paid_s in paid_at_s.items():
            self._paid_at_s.put(key, paid_s)

    def refund(self, amounts: Mapping[str, int]) -> None:
        """Undo `charge` for a batch that was not stored."""
        for key, amount in amounts.items():
            paid_s = self._paid_at_s.get(key)
            if paid_s is not None:
                self._paid_at_s.put(key, paid_s - amount / self._per_s)
