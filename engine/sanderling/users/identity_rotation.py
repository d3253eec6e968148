"""When an install gives up its id and its pseudonyms: after a number of days, or when the collector
asks for it.

The age is counted by the wall clock and survives restarts. An unset clock (before 2025) counts
nothing.
"""

from __future__ import annotations

from sanderling.outbox.outbox import Outbox
from sanderling.outbox.state_table import CREATED_AT
from sanderling.runtime.clock import OLDEST_MS
from sanderling.users.exploration_budget import DAY_MS


class IdentityRotation:
    """The age of one identity of an install; without an outbox there is no identity that lasts, and
    no age."""

    def __init__(self, outbox: Outbox | None, install: str) -> None:
        self._outbox = outbox
        self._install = install
        self._requested = False
        self._born_ms = 0  # unknown until `age_ms` is first called under a clock that is set

    def request(self) -> None:
        """Make the rotation due, however young the identity is."""
        self._requested = True

    def is_due(self, days: float | None, now_ms: int) -> bool:
        """Return whether the identity is `days` old, or was asked to end; raise `StorageError` as
        `age_ms` does."""
        return self._requested or (days is not None and self.age_ms(now_ms) >= days * DAY_MS)

    def start_age(self, now_ms: int) -> None:
        """Note when this identity began, unless that is known; raise `StorageError` when it cannot
        be read."""
        if not self._born_ms:
            self.age_ms(now_ms)

    def age_ms(self, now_ms: int) -> int:
        """Return the age by the wall clock; raise `StorageError` when its beginning cannot be read.

        The age starts again from 0 where an earlier clock was ahead of this one: otherwise a device
        whose clock was once years ahead would never rotate.
        """
        if self._outbox is None or now_ms < OLDEST_MS:
            return 0

        born_ms = self._born_ms or int.from_bytes(self._outbox.state(CREATED_AT) or b"")
        if not 0 < born_ms <= now_ms:
            born_ms = now_ms
            self._outbox.put([], {CREATED_AT: born_ms.to_bytes(8)}, self._install)

        self._born_ms = born_ms
        return now_ms - born_ms
