"""How many explored slots each user was shown today, so that nobody is experimented on too much.

A day is a UTC day of the device's wall clock; a clock that jumps to another day begins a new budget. Refuses to know
where the bytes are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from sanderling.users.user_cache import UserCache

DAY_MS = 86_400_000
_STORED = struct.Struct("<qq")  # the day, and the explored slots shown on it


class ExplorationBudget:
    """The counts of all users of an engine; `load` returns the stored bytes of a key, or None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._kept = UserCache("explored", load, _parse)

    def spent(self, user: str, now_ms: int) -> int:
        """Return the explored slots that a pseudonym was shown today."""
        day, slots = self._kept.get(user)
        return slots if day == now_ms // DAY_MS else 0

    def spend(self, user: str, now_ms: int, slots: int) -> dict[str, bytes]:
        """Count explored slots that were shown now; return the key and bytes to store."""
        spent = now_ms // DAY_MS, self.spent(user, now_ms) + slots
        self._kept.keep(user, spent)
        return {self._kept.key(user): _STORED.pack(*spent)}

    def forget(self, user: str) -> str:
        """Drop what is known of a pseudonym from memory; return the key under which it may be stored."""
        return self._kept.forget(user)


def _parse(stored: bytes | None) -> tuple[int, int]:
    day, slots = _STORED.unpack(stored) if stored and len(stored) == _STORED.size else (0, 0)
    return day, slots
