"""A limit of events a second for each install."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.limits import Limits, RefusalError

MAX_REMEMBERED = 100_000


class RateLimit:
    """Limits the events per second of each install.

    A batch passes whole if its install has no debt, and its events may leave one. Kept is the moment, in seconds of
    the monotonic clock, at which the debt is paid.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._paid_at: dict[str, float] = {}

    def take(self, installs: Mapping[str, int]) -> None:
        """Book the events of each install; raise `RefusalError` and book nothing while one is in debt."""
        now = self._clock.mono_ms() / 1000
        for install in installs:
            wait_s = self._paid_at.get(install, now) - now
            if wait_s > 0:
                raise RefusalError(
                    429,
                    f"expected at most {self._limits.events_s:g} events/s of an install",
                    wait_s,
                )

        earliest = now - self._limits.burst / self._limits.events_s
        for install, events in installs.items():
            paid_at = max(earliest, self._paid_at.pop(install, earliest))
            self._paid_at[install] = paid_at + events / self._limits.events_s
        trim(self._paid_at, MAX_REMEMBERED)

    def give_back(self, installs: Mapping[str, int]) -> None:
        """Undo `take` for a batch that was not stored."""
        for install, events in installs.items():
            if install in self._paid_at:
                self._paid_at[install] -= events / self._limits.events_s


def trim(entries: dict[str, Any], most: int) -> None:
    """Remove the oldest entries beyond `most`."""
    for name in list(islice(entries, max(0, len(entries) - most))):
        del entries[name]
