"""The outbox's SQLite file: opening, locking, starting anew after damage, and transactions over its one record.

WAL mode, one writing connection and one that only reads. Refuses to know what the rows mean.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import apsw

from sanderling.clock import Entropy
from sanderling.contract.seal import flush_path
from sanderling.errors import StorageError

SCHEMA = 1
DATABASE = "outbox.db"
ASIDE = "corrupt.db"
PAGE_BYTES = 4096

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (one INTEGER PRIMARY KEY CHECK (one = 1), install TEXT NOT NULL, secret BLOB NOT NULL,
  seq INTEGER NOT NULL, handed INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, decision TEXT,
  level INTEGER NOT NULL, line BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_decision ON event (decision) WHERE decision IS NOT NULL;
CREATE TABLE IF NOT EXISTS quarantine (seq INTEGER PRIMARY KEY, id TEXT, reason TEXT NOT NULL, line BLOB);
CREATE TABLE IF NOT EXISTS state (user TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL,
  seq INTEGER NOT NULL);
"""


@dataclass
class Meta:
    """Who this install is, its last number, the last number that may have left the device, and what is waiting."""

    install: str
    secret: bytes
    seq: int = 0
    handed: int = 0
    events: int = 0
    bytes: int = 0

    def crc(self) -> int:
        """Return the checksum that the record carries."""
        return zlib.crc32(repr((self.install, self.secret, self.seq, self.handed, self.events, self.bytes)).encode())


class Database:
    """The file of one state folder; raises `StorageError` when it cannot be opened, `apsw.Error` later.

    `was_reset` tells that a damaged file was moved aside; then `meta.install` is a fresh one, so that no number is
    used twice under the same name.
    """

    def __init__(self, folder: Path, limit_bytes: int, entropy: Entropy) -> None:
        self._folder, self._limit, self._entropy = folder, limit_bytes, entropy
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / "outbox.lock")
            self.was_reset = self._open_or_reset()
            flush_path(folder)
        except (apsw.Error, OSError) as error:
            raise StorageError(
                f"expected a usable outbox in {folder}: {error}: free the disk or fix the rights"
            ) from error

    def _open_or_reset(self) -> bool:
        try:
            self._open()
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.ConstraintError):
            self.writer.close()
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    (self._folder / (DATABASE + suffix)).replace(self._folder / (ASIDE + suffix))
            self._open()
            return True
        return False

    def _open(self) -> None:
        path = str(self._folder / DATABASE)
        self.writer = apsw.Connection(path)
        self.writer.set_busy_timeout(2000)
        found = self.writer.pragma("user_version")
        if found not in (0, SCHEMA):
            self.writer.close()
            raise StorageError(f"{path}: expected schema {SCHEMA}, found {found}, of a later version: update the app")
        self.writer.pragma("journal_mode", "wal")
        self.writer.pragma("synchronous", "full")
        self.writer.pragma("journal_size_limit", self._limit // 16)
        self.writer.wal_autocheckpoint(min(1000, max(16, self._limit // 16 // PAGE_BYTES)))
        if self.writer.execute("PRAGMA quick_check(1)").get != "ok":
            raise apsw.CorruptError("quick_check failed")
        self.writer.execute("BEGIN IMMEDIATE;" + _TABLES + f"PRAGMA user_version={SCHEMA}; COMMIT")
        self.meta = self._read_meta() or self._first_meta()
        self.reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        self.reader.set_busy_timeout(2000)

    def _read_meta(self) -> Meta | None:
        row = self.writer.execute("SELECT install, secret, seq, handed, events, bytes, crc FROM meta").get
        if row is None:
            return None
        meta = Meta(*row[:-1])
        if meta.crc() != row[-1]:
            raise apsw.CorruptError("the outbox's own record has a wrong checksum")
        return meta

    def _first_meta(self) -> Meta:
        meta = Meta(install=self._entropy(16).hex(), secret=self._entropy(32))
        self._save_meta(meta)
        return meta

    def _save_meta(self, meta: Meta) -> None:
        row = (meta.install, meta.secret, meta.seq, meta.handed, meta.events, meta.bytes, meta.crc())
        self.writer.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[Meta]:
        """Yield a working copy of the record; it and all rows become true together, on disk if `durable`."""
        self.writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self.writer.execute("BEGIN IMMEDIATE")
        try:
            meta = self._read_meta() or replace(self.meta)
            yield meta
            self._save_meta(meta)
            self.writer.execute("COMMIT")
        except BaseException:
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")
            raise
        self.meta = meta

    def used(self) -> int:
        """Return the bytes of the pages that hold something."""
        pages: int = self.writer.pragma("page_count") - self.writer.pragma("freelist_count")
        return pages * PAGE_BYTES

    def close(self) -> None:
        """Close the file and let another engine have the folder; a last checkpoint that fails loses nothing."""
        for connection in (self.reader, self.writer, self._lock):
            with suppress(apsw.Error):
                connection.close()

    def abandon(self) -> None:
        """Keep this process from ever closing the connections: after a fork they belong to the parent."""
        for connection in (self.reader, self.writer, self._lock):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _lock(path: Path) -> apsw.Connection:
    lock = apsw.Connection(str(path))
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except apsw.BusyError:
        lock.close()
        raise StorageError(
            f"{path.parent}: expected one engine per state folder, found another: close it first"
        ) from None
    return lock
