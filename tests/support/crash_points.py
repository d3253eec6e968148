"""Named points at which a victim may crash: before and after each kind of SQL statement and of file
operation, and on the way to the collector and back. SQLite reports them; the code has no hooks.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import apsw

from tests.support.disks import Disk


class CrashPoints(Disk):
    """Ends the process, as `kill -9` does, at the `nth` passing of one point; logs all passings
    in `record`."""

    def __init__(self, point: str = "", nth: int = 1, record: Path | None = None) -> None:
        super().__init__()
        self.point, self.nth = point, nth
        self.record = record.open("a", buffering=1) if record is not None else None
        self.seen: Counter[str] = Counter()
        apsw.connection_hooks.append(self.watch)

    def passing(self, point: str) -> None:
        self.seen[point] += 1
        if self.record is not None:
            self.record.write(point + "\n")
        if point == self.point and self.seen[point] >= self.nth:
            os._exit(137)

    def watch(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self.statement
        connection.set_profile(lambda sql, _: self.passing(f"after {named(sql)}"))

    def statement(self, cursor, sql: str, bindings) -> bool:
        self.passing(f"before {named(sql)}")
        return True

    def before(self, operation: str, path: str, size: int) -> None:
        self.passing(f"before {operation} {Path(path).name}")

    def after(self, operation: str, path: str) -> None:
        self.passing(f"after {operation} {Path(path).name}")


def named(sql: str) -> str:
    """Return the verb of a statement and its table."""
    words = sql.split()
    table = next(
        (after for word, after in pairwise(words) if word in ("INTO", "FROM", "UPDATE")), ""
    )
    return f"{words[0].rstrip(';')} {table}".strip()
