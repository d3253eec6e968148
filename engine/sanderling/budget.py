"""How many explored slots each user was shown today, so that nobody is experimented on too much.

A day is a UTC day of the device's wall clock; a clock that jumps to another day begins a new budget. Refuses to know
where the bytes are stored.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

DAY_MS = 86_400_000
CACHED_USERS = 4096
_STORED = struct.Struct("<qq")  # the day, and the explored slots shown on it


class Budget:
    """The counts of all users of an engine; `load` returns the stored bytes of a key, or None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._load = load
        self._spent: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def spent(self, user: str, now_ms: int) -> int:
        """Return the explored slots that a pseudonym was shown today."""
        found = self._spent.get(user)
        if found is None:
            stored = self._load(key_of(user))
            found = _STORED.unpack(stored) if stored and len(stored) == _STORED.size else (0, 0)
            self._keep(user, found)
        return found[1] if found[0] == now_ms // DAY_MS else 0

    def spend(self, user: str, now_ms: int, slots: int) -> dict[str, bytes]:
        """Count explored slots that were shown now; return the key and bytes to store."""
        spent = now_ms // DAY_MS, self.spent(user, now_ms) + slots
        self._keep(user, spent)
        return {key_of(user): _STORED.pack(*spent)}

    def _keep(self, user: str, spent: tuple[int, int]) -> None:
        self._spent[user] = spent
        self._spent.move_to_end(user)
        if len(self._spent) > CACHED_USERS:
            self._spent.popitem(last=False)


def key_of(user: str) -> str:
    """Return the key under which a pseudonym's count is stored."""
    return f"explored:{user}"
