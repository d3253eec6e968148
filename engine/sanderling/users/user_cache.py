"""A small stored value for each user, cached in memory for the active ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from sanderling.runtime.lru_cache import LruCache

T = TypeVar("T")

CACHED_USERS = 4096
"""Users whose values are in memory; those of the others are read when they are needed."""


class UserCache(Generic[T]):
    """Values by pseudonym.

    `load` returns the stored bytes of a key, or None; `parse` turns these, or None, into a value.
    """

    def __init__(
        self, name: str, load: Callable[[str], bytes | None], parse: Callable[[bytes | None], T]
    ) -> None:
        self._name = name
        self._load = load
        self._parse = parse
        self._values: LruCache[str, T] = LruCache(CACHED_USERS)

    def key(self, user: str) -> str:
        """Return the key under which a user's value is stored."""
        return f"{self._name}:{user}"

    def get(self, user: str) -> T:
        """Return a user's value."""
        value = self._values.get(user)
        if value is None:
            value = self._parse(self._load(self.key(user)))
            self._values.put(user, value)
        return value

    def put(self, user: str, value: T) -> None:
        """Replace a user's value in memory; the caller stores it."""
        self._values.put(user, value)

    def forget(self, user: str) -> str:
        """Drop a user's value from memory; return the key under which it may be stored."""
        self._values.pop(user)
        return self.key(user)
