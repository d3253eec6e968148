"""How many explored slots each user was shown today: a bundle can cap exploration per user and day.

A day is a UTC day of the device's wall clock; a clock that jumps to another day starts a new
budget.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from sanderling.users.user_cache import UserCache

DAY_MS = 86_400_000
_STORED = struct.Struct("<qq")  # days since 1970, explored slots shown on that day


class ExplorationBudget:
    """The counts of all users of an engine; `load` returns the stored bytes of a key, or None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._cache = UserCache("explored", load, _parse)

    def spent(self, user: str, now_ms: int) -> int:
        """Return the number of explored slots that a pseudonym was shown today."""
        day, slots = self._cache.get(user)
        return slots if day == now_ms // DAY_MS else 0

    def spend(self, user: str, now_ms: int, slots: int) -> dict[str, bytes]:
        """Count explored slots that are shown now; return the bytes to store, by key."""
        day_and_slots = (now_ms // DAY_MS, self.spent(user, now_ms) + slots)
        self._cache.put(user, day_and_slots)
        return {self._cache.key(user): _STORED.pack(*day_and_slots)}

    def forget(self, user: str) -> str:
        """Drop a pseudonym's count from memory; return the key under which it may be stored."""
        return self._cache.forget(user)


def _parse(stored: bytes | None) -> tuple[int, int]:
    is_intact = stored is not None and len(stored) == _STORED.size
    day, slots = _STORED.unpack(stored) if stored and is_intact else (0, 0)
    return day, slots
