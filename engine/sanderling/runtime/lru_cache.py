"""A bounded mapping that drops the entry that was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Holds the `size` entries used last. Unlike `functools.lru_cache` it can be written. Not
    thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """Return a value, which counts as a use, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return a value, which does not count as a use, or None."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Store a value, and drop the entry used longest ago where there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Remove an entry and return its value, or None."""
        return self._values.pop(key, None)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield the entries, the one used longest ago first."""
        yield from self._values.items()
