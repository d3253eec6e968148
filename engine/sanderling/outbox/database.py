"""The outbox's SQLite file: opening, locking, starting anew after damage, and transactions over its one record.

WAL mode, one writing connection and one that only reads. Refuses to know what the rows mean.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import apsw

from sanderling.errors import StorageError
from sanderling.outbox.folder_lock import WRITING, FolderLock, unusable
from sanderling.outbox.identity import Identity
from sanderling.runtime.clock import Entropy
from sanderling.runtime.files import flush_path
from sanderling.runtime.fork_safety import connect

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
class OutboxHeader:
    """Who this install is, its last number, the last number that may have left the device, and what is waiting."""

    install: str
    secret: bytes
    seq: int = 0
    sent_seq: int = 0
    events: int = 0
    bytes: int = 0

    def crc(self) -> int:
        """Return the checksum that the record carries."""
        return zlib.crc32(
            repr(
                (self.install, self.secret, self.seq, self.sent_seq, self.events, self.bytes)
            ).encode()
        )


class Database:
    """The file of one state folder; raises `StorageError` when it cannot be opened, `apsw.Error` later.

    `was_reset` tells that a damaged file was moved aside and nothing was numbered since; then `meta.install` is a fresh
    one, so that no number is used twice under the same name.
    """

    def __init__(self, folder: Path, limit_bytes: int, entropy: Entropy) -> None:
        self._folder, self._limit, self._entropy = folder, limit_bytes, entropy
        self._claim: FolderLock | None = None
        self._connections: list[apsw.Connection] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = FolderLock(folder)
            self._open_or_reset()
            self.was_reset = self.meta.seq == 0 and bool(self._aside())
            self._aside_bytes = sum(path.stat().st_size for path in self._aside())
            flush_path(folder)
        except (apsw.Error, OSError) as error:
            self.close()
            raise unusable(folder, error) from error
        except StorageError:
            self.close()
            raise

    def _connect(self, path: Path, flags: int = WRITING) -> apsw.Connection:
        connection = connect(path, flags)
        self._connections.append(connection)
        return connection

    def _open_or_reset(self) -> None:
        path = self._folder / DATABASE
        try:
            if path.exists() and not path.is_file():
                raise apsw.NotADBError("not a file")
            self._open(path)
        except (
            apsw.CorruptError,
            apsw.NotADBError,
            apsw.SQLError,
            apsw.ConstraintError,
            UnicodeDecodeError,
        ):
            self._close_connections()
            self._move_aside()
            self._open(path)

    def _move_aside(self) -> None:
        """Keep the damaged file, and what belongs to it, under another name; the last one only."""
        for suffix in ("", "-wal", "-shm"):
            aside = self._folder / (ASIDE + suffix)
            if aside.is_dir():
                shutil.rmtree(aside)
            with suppress(FileNotFoundError):
                (self._folder / (DATABASE + suffix)).replace(aside)

    def _aside(self) -> list[Path]:
        return list(self._folder.glob(f"{ASIDE}*"))

    def delete_aside(self) -> None:
        """Delete what was moved aside, as far as that is possible now: raises `OSError`."""
        for path in self._aside():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._aside_bytes = 0

    def _open(self, path: Path) -> None:
        self.writer = self._connect(path)
        self.writer.set_busy_timeout(2000)
        found = self.writer.pragma("user_version")
        if found not in (0, SCHEMA):
            raise StorageError(
                f"{path}: expected schema {SCHEMA}, found {found}, of a later version: update the app"
            )
        self.writer.pragma("journal_mode", "wal")
        self.writer.pragma("synchronous", "full")
        self.writer.pragma("journal_size_limit", self._limit // 16)
        if not self._intact():
            self.writer.execute("REINDEX")
            if not self._intact():
                raise apsw.CorruptError("the tables are damaged, not only their indexes")
        self.writer.execute("BEGIN IMMEDIATE;" + _TABLES + f"PRAGMA user_version={SCHEMA}; COMMIT")
        if _schema(self.writer) != _schema(_fresh()):
            raise apsw.CorruptError("the tables are not those that were made")
        self.meta = self._read_meta() or self._first_meta()
        self.reader = self._connect(path, apsw.SQLITE_OPEN_READONLY)
        self.reader.set_busy_timeout(2000)
        self._file = path.stat()

    def _intact(self) -> bool:
        """Check tables and indexes, 0.15 s for 64 MiB: no faster check finds a rotten index, and it stops uploads."""
        return bool(self.writer.execute("PRAGMA integrity_check(1)").get == "ok")

    def _read_meta(self) -> OutboxHeader | None:
        row = self.writer.execute(
            "SELECT install, secret, seq, handed, events, bytes, crc FROM meta"
        ).get
        if row is None:
            return None
        meta = OutboxHeader(*row[:-1])
        if meta.crc() != row[-1]:
            raise apsw.CorruptError("the outbox's own record has a wrong checksum")
        return meta

    def _first_meta(self) -> OutboxHeader:
        meta = OutboxHeader(*Identity.fresh(self._entropy))
        self._save_meta(meta)
        return meta

    def _save_meta(self, meta: OutboxHeader) -> None:
        row = (
            meta.install,
            meta.secret,
            meta.seq,
            meta.sent_seq,
            meta.events,
            meta.bytes,
            meta.crc(),
        )
        self.writer.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[OutboxHeader]:
        """Yield a working copy of the record; it and all rows become true together, on disk if `durable`."""
        self._check_in_place()
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

    def _check_in_place(self) -> None:
        """Refuse to write into a file that has lost its name: SQLite would, and it would be gone when closed."""
        path = self._folder / DATABASE
        try:
            there = os.path.samestat(path.stat(), self._file)
        except OSError:
            there = False
        if not there:
            raise apsw.CantOpenError(
                f"{path}: expected the file that was opened, found it removed or replaced"
            )

    def used(self) -> int:
        """Return the bytes of the pages that hold something, and of what was moved aside."""
        pages: int = self.writer.pragma("page_count") - self.writer.pragma("freelist_count")
        return pages * PAGE_BYTES + self._aside_bytes

    def free(self) -> int:
        """Return the bytes of the pages that hold nothing."""
        return int(self.writer.pragma("freelist_count")) * PAGE_BYTES

    def close(self) -> None:
        """Close the file and let another engine have the folder; a last checkpoint that fails loses nothing."""
        self._close_connections()
        if self._claim is not None:
            self._claim.close()

    def _close_connections(self) -> None:
        for connection in reversed(self._connections):
            with suppress(apsw.Error):
                connection.close()
        self._connections.clear()


def _fresh() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(_TABLES)
    return connection


def _schema(connection: apsw.Connection) -> list[tuple[str, ...]]:
    return list(
        connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")
    )
