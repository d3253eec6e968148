"""What a request may cost, and what one that costs more is told. Refuses to know events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sanderling.clock import Clock

MAX_REMEMBERED = 100_000


class RefusalError(Exception):
    """A request that gets no verdicts: its status and the reason, and the seconds to wait where waiting helps."""

    def __init__(self, status: int, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.wait_s = status, reason, wait_s


@dataclass(frozen=True)
class Limits:
    """The bounds of one server: `connections` counts those without a request, `strangers` the lookups of new tokens,
    for which `waiting_strangers` wait, `strangers_s` at most;
    `events_s`, `burst` are an install's; `slow_s` is the age from which a body makes room for others."""

    connections: int = 10_000
    head_s: float = 30.0
    head_bytes: int = 64 * 1024
    body_bytes: int = 2 * 1024 * 1024
    body_s: float = 30.0
    strangers: int = 8
    waiting_strangers: int = 512
    strangers_s: float = 5.0
    requests: int = 256
    slow_s: float = 2.0
    waiting_bytes: int = 64 * 1024 * 1024
    installs: int = 16
    events_s: float = 1000.0
    burst: float = 20_000.0
    retry_after_s: float = 5.0


class Rate:
    """Lets each install send so many events a second, after a burst. A batch passes whole, and its debt is paid later.

    Kept is the moment at which an install's debt will be paid.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        self._paid_at: dict[str, float] = {}

    @contextmanager
    def booked(self, installs: Mapping[str, int]) -> Iterator[None]:
        """Book the events of each install, and give them back if one is refused, or what they are for fails."""
        taken: list[str] = []
        try:
            for install, events in installs.items():
                self.take(install, events)
                taken.append(install)
            yield
        except BaseException:
            for install in taken:
                self._give_back(install, installs[install])
            raise

    def take(self, install: str, events: int) -> None:
        """Book the events; raise `RefusalError` while the install is in debt."""
        now = self._clock.mono_ms() / 1000
        earliest = now - self._limits.burst / self._limits.events_s
        paid_at = max(earliest, self._paid_at.pop(install, earliest))
        if paid_at <= now:
            self._paid_at[install] = paid_at + events / self._limits.events_s
            trim(self._paid_at, MAX_REMEMBERED)
            return
        self._paid_at[install] = paid_at
        raise RefusalError(429, f"expected at most {self._limits.events_s:g} events/s of an install", paid_at - now)

    def _give_back(self, install: str, events: int) -> None:
        if install in self._paid_at:
            self._paid_at[install] -= events / self._limits.events_s


def trim(entries: dict[str, Any], most: int) -> None:
    """Remove the oldest entries beyond `most`."""
    for name in list(islice(entries, max(0, len(entries) - most))):
        del entries[name]
