"""A cache of recent ids, of fixed size, to detect most duplicates and conflicts; best effort.

A direct-mapped table of 24 bytes an entry: an id has one slot and evicts the id that was there.
After as many other ids as there are slots 37 % of all ids are still cached. Readers deduplicate the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

SLOTS = 2**19
"""12 MiB of entries."""

# The id as two words, and the checksum of the event's body plus one; 0 is an empty slot.
ROW = np.dtype([("id", "<u8", 2), ("checksum", "<i8")])


class RecentIds:
    """Maps ids of 32 hex digits to checksums of 32 bits."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._rows = np.zeros(slots, ROW)

    @property
    def nbytes(self) -> int:
        """The size of the table in bytes, which never changes."""
        return self._rows.nbytes

    def get(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the checksums of those ids that are cached."""
        names = list(ids)
        keys = keys_of(names)
        rows = self._rows[self._slots_of(keys)]
        is_cached = (rows["id"] == keys).all(axis=1) & (rows["checksum"] > 0)
        return {names[row]: int(rows["checksum"][row]) - 1 for row in np.flatnonzero(is_cached)}

    def add(self, checksums: Mapping[str, int]) -> None:
        """Add ids with their checksums."""
        keys = keys_of(checksums)
        rows = np.empty(len(keys), ROW)
        rows["id"] = keys
        rows["checksum"] = np.fromiter(checksums.values(), np.int64, len(checksums)) + 1
        self._rows[self._slots_of(keys)] = rows

    def _slots_of(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        # The second half of a version 7 UUID is nearly all random.
        return keys[:, 1] % np.uint64(len(self._rows))


def keys_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return ids as pairs of words, uint64 [n, 2]."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype("<u8").reshape(-1, 2)
