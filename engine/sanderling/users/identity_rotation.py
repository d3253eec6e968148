"""When to rotate the install id and the pseudonyms: by age, or at the collector's request.

The age is counted by the wall clock and survives restarts. An unset clock (before 2025) counts
nothing.
"""

from __future__ import annotations

from sanderling.outbox.outbox import Outbox
from sanderling.outbox.state_table import CREATED_AT
from sanderling.runtime.clock import OLDEST_MS
from sanderling.users.exploration_budget import DAY_MS


class IdentityRotation:
    """The age of one identity of an install, and whether its rotation is due.

    Without an outbox no identity outlives the process, and the age is always 0.
    """

    def __init__(self, outbox: Outbox | None, install: str) -> None:
        self._outbox = outbox
        self._install = install
        self._requested = False
        self._created_ms = 0  # unknown until `age_ms` is first called under a clock that is set

    def request(self) -> None:
        """Make the rotation due, whatever the age of the identity."""
        self._requested = True

    def is_due(self, days: float | None, now_ms: int) -> bool:
        """Return whether the identity is `days` old, or its rotation was requested.

        Raises `StorageError` when the age cannot be read.
        """
        return self._requested or (days is not None and self.age_ms(now_ms) >= days * DAY_MS)

    @property
    def has_age(self) -> bool:
        """Whether it is known, and stored, when this identity was created."""
        return self._created_ms > 0

    def record_creation(self, now_ms: int) -> None:
        """Store when this identity was created, unless that is stored already.

        Raises `StorageError` when it cannot be read.
        """
        if not self._created_ms:
            self.age_ms(now_ms)

    def age_ms(self, now_ms: int) -> int:
        """Return the age in ms by the wall clock, 0 while that is not set.

        Raises `StorageError` when the time of creation cannot be read.

        The age starts again from 0 where an earlier clock was ahead of this one: otherwise a device
        whose clock was once years ahead would never rotate.
        """
        if self._outbox is None or now_ms < OLDEST_MS:
            return 0

        created_ms = self._created_ms or int.from_bytes(self._outbox.state(CREATED_AT) or b"")
        if not 0 < created_ms <= now_ms:
            created_ms = now_ms
            self._outbox.put([], {CREATED_AT: created_ms.to_bytes(8)}, self._install)

        self._created_ms = created_ms
        return now_ms - created_ms
