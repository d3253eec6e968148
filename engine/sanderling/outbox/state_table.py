"""User states and other small values by key, each with its checksum."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable

from sanderling.outbox.database import Database, OutboxHeader

GAP = "gap:"
"""Prefix of the marks that say whose state training cannot rebuild."""
CREATED_AT = "created"
"""The key under which the time is kept at which this identity was created."""
UNSCRUBBED = "unscrubbed"
"""The key of the mark that deleted bytes have not been overwritten yet."""

_MARKS = f"key >= '{GAP}' AND key < '{GAP[:-1]};'"  # ";" follows ":" in ASCII
_ROW_OVERHEAD = 64  # bytes of a row beside its value: key, checksum and index entry, about


class StateTable:
    """The table `state`. Reading is thread-safe; writing takes place inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> bytes | None:
        """Return the stored value; None where there is none or it is damaged."""
        return self._intact("key = ?", key).get(key)

    def with_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return the intact values whose keys start with an ASCII prefix."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return self._intact("key >= ? AND key < ?", prefix, after)

    def _intact(self, condition: str, *parameters: str) -> dict[str, bytes]:
        query = f"SELECT key, CAST(value AS BLOB), crc FROM state WHERE {condition}"
        rows = self._database.read(query, parameters)
        return {
            key: value for key, value, crc in rows if value is not None and zlib.crc32(value) == crc
        }

    def put(self, header: OutboxHeader, key: str, value: bytes) -> None:
        """Store a value, which may be empty, in place of an older one."""
        row = (key, value, zlib.crc32(value), header.seq)
        self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete the values under these keys."""
        for key in keys:
            self._database.execute("DELETE FROM state WHERE key = ?", (key,))

    def trim(self, max_bytes: int, max_marks: int, keep: Collection[str]) -> None:
        """Bound the states' size and the number of marks: those written longest ago go first."""
        kept = ", ".join("?" * len(keep))
        size = f"sum(length(value) + {_ROW_OVERHEAD}) OVER (ORDER BY seq DESC)"
        self._database.execute(
            f"DELETE FROM state WHERE key NOT IN ({kept}) AND NOT ({_MARKS}) AND seq <="
            f" (SELECT max(seq) FROM (SELECT seq, {size} AS size FROM state WHERE NOT ({_MARKS}))"
            " WHERE size > ?)",
            (*keep, max_bytes),
        )
        self._database.execute(
            f"DELETE FROM state WHERE key IN"
            f" (SELECT key FROM state WHERE {_MARKS} ORDER BY seq DESC LIMIT -1 OFFSET ?)",
            (max_marks,),
        )
