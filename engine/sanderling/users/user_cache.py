"""Small values kept for each user: in memory for the busy ones, loaded when they come back.

Refuses to know what the values mean and where their bytes are stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

CACHED_USERS = 4096


class UserCache(Generic[T]):
    """Values by pseudonym; `load` returns the stored bytes of a key, or None, and `parse` what they, or None, mean."""

    def __init__(
        self, name: str, load: Callable[[str], bytes | None], parse: Callable[[bytes | None], T]
    ) -> None:
        self._name, self._load, self._parse = name, load, parse
        self._values: OrderedDict[str, T] = OrderedDict()

    def key(self, user: str) -> str:
        """Return the key under which a user's value is stored."""
        return f"{self._name}:{user}"

    def get(self, user: str) -> T:
        """Return a user's value."""
        found = self._values.get(user)
        if found is None:
            found = self._parse(self._load(self.key(user)))
            self.keep(user, found)
        return found

    def keep(self, user: str, value: T) -> None:
        """Remember a user's value; storing it is the caller's."""
        self._values[user] = value
        self._values.move_to_end(user)
        if len(self._values) > CACHED_USERS:
            self._values.popitem(last=False)

    def forget(self, user: str) -> str:
        """Drop a user's value from memory; return the key under which it may be stored."""
        self._values.pop(user, None)
        return self.key(user)
