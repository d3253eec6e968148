"""The outbox's SQLite file: opening, replacing a damaged file, and transactions over its header.

WAL mode, with one connection that writes and one that only reads.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import apsw

from sanderling.errors import StorageError
from sanderling.outbox.folder_lock import WRITING, FolderLock, unusable
from sanderling.outbox.identity import Identity
from sanderling.runtime.clock import Entropy
from sanderling.runtime.files import flush_path, make_private, make_private_folder
from sanderling.runtime.fork_safety import connect

SCHEMA = 1
"""The version of the tables; a file of a later one is refused, not reset."""

DATABASE = "outbox.db"

DAMAGED = "corrupt.db"
"""The name under which a damaged file is kept."""

PAGE_BYTES = 4096
"""SQLite's default page size."""

BUSY_TIMEOUT_MS = 2000
"""How long a statement waits for the lock of another process that has the file open."""

# `one` keeps the header a single row.
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (one INTEGER PRIMARY KEY CHECK (one = 1), install TEXT NOT NULL,
  secret BLOB NOT NULL, seq INTEGER NOT NULL, sent_seq INTEGER NOT NULL, events INTEGER NOT NULL,
  crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL, decision TEXT, level INTEGER NOT NULL, line BLOB NOT NULL,
  crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_decision ON event (decision) WHERE decision IS NOT NULL;
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL,
  seq INTEGER NOT NULL);
"""

# What SQLite and apsw raise on a file that is no database, or not one of ours.
_DAMAGE = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.SQLError,
    apsw.ConstraintError,
    UnicodeDecodeError,
)


@dataclass
class OutboxHeader:
    """The one record about the whole file, with its own checksum."""

    install: str
    secret: bytes
    seq: int = 0
    """The last sequence number given to an event of this install."""
    sent_seq: int = 0
    """The last sequence number that may have left the device."""
    events: int = 0
    """How many events are stored."""

    def crc(self) -> int:
        """Return the checksum of all fields."""
        return zlib.crc32(repr(astuple(self)).encode())


class Database:
    """The file of one state folder. Raises `StorageError` when it cannot be opened, else
    `apsw.Error`.

    `was_reset` is true when a damaged file was moved aside and nothing has been numbered since. The
    header then holds a new install id, so that no number is used twice under one id.
    """

    header: OutboxHeader
    """The header as of the last commit."""

    def __init__(self, folder: Path, limit_bytes: int, entropy: Entropy) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._entropy = entropy
        self._lock: FolderLock | None = None
        self._connections: list[apsw.Connection] = []
        self._reading = Lock()
        try:
            make_private_folder(folder)
            self._lock = FolderLock(folder)
            self._open_or_reset()
            self.was_reset = self.header.seq == 0 and bool(self._damaged_files())
            self._damaged_bytes = sum(path.stat().st_size for path in self._damaged_files())
            flush_path(folder)
        except (apsw.Error, OSError) as error:
            self.close()
            raise unusable(folder, error) from error
        except StorageError:
            self.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> apsw.Cursor:
        """Run statements on the writing connection; only the thread that owns the file may."""
        return self._writer.execute(sql, parameters)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query on the reading connection, as of the last commit.
        Thread-safe."""
        with self._reading:
            return list(self._reader.execute(sql, parameters))

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[OutboxHeader]:
        """Commit the yielded copy of the header with all rows, atomically; on disk if `durable`."""
        self._check_in_place()
        self.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self.execute("BEGIN IMMEDIATE")
        try:
            header = self._read_header() or replace(self.header)
            yield header
            self._save_header(header)
            self.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self.execute("ROLLBACK")
            raise
        self.header = header

    def checkpoint(self) -> None:
        """Fold the log into the file, and cut it to nothing."""
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def checkpoint_every(self, pages: int) -> None:
        """Fold the log into the file whenever it holds `pages` pages."""
        self._writer.wal_autocheckpoint(pages)

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use, and of a damaged file that was moved aside."""
        pages: int = self._writer.pragma("page_count") - self._writer.pragma("freelist_count")
        return pages * PAGE_BYTES + self._damaged_bytes

    def free_bytes(self) -> int:
        """Return the bytes of the file's unused pages."""
        return int(self._writer.pragma("freelist_count")) * PAGE_BYTES

    def delete_damaged(self) -> None:
        """Delete the damaged file that was moved aside, if any; raises `OSError`."""
        for path in self._damaged_files():
            path.unlink()
        self._damaged_bytes = 0

    def close(self) -> None:
        """Close the file and release the folder; a last checkpoint that fails loses nothing."""
        self._close_connections()
        if self._lock is not None:
            self._lock.close()

    def _connect(self, path: Path, flags: int) -> apsw.Connection:
        connection = connect(path, flags)
        self._connections.append(connection)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return connection

    def _close_connections(self) -> None:
        for connection in reversed(self._connections):
            with suppress(apsw.Error):
                connection.close()
        self._connections.clear()

    def _open_or_reset(self) -> None:
        path = self._folder / DATABASE
        try:
            self._open(path)
        except _DAMAGE:
            self._close_connections()
            self._move_aside()
            self._open(path)

    def _open(self, path: Path) -> None:
        make_private(path)  # it holds the install's secret; SQLite's other files get its mode
        self._writer = self._connect(path, WRITING)
        version = self._writer.pragma("user_version")
        if version not in (0, SCHEMA):
            raise StorageError(
                f"{path}: expected schema {SCHEMA}, found {version}, of a later version:"
                " update the app"
            )

        self._writer.pragma("journal_mode", "wal")
        self._writer.pragma("synchronous", "full")
        self._writer.pragma("journal_size_limit", self._limit // 16)
        if not self._is_intact():
            self.execute("REINDEX")
            if not self._is_intact():
                raise apsw.CorruptError("the tables are damaged, not only their indexes")

        self.execute("BEGIN IMMEDIATE;" + _TABLES + f"PRAGMA user_version={SCHEMA}; COMMIT")
        if _schema(self._writer) != _schema(_empty_database()):
            raise apsw.CorruptError("the tables are not those of this schema")

        self.header = self._read_header() or self._first_header()
        self._reader = self._connect(path, apsw.SQLITE_OPEN_READONLY)
        self._file = path.stat()

    def _is_intact(self) -> bool:
        # 0.15 s for 64 MiB. No faster check finds a damaged index, which would stop uploads.
        return bool(self.execute("PRAGMA integrity_check(1)").get == "ok")

    def _move_aside(self) -> None:
        """Keep the damaged file and its log under another name; only the last one is kept."""
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                (self._folder / (DATABASE + suffix)).replace(self._folder / (DAMAGED + suffix))

    def _damaged_files(self) -> list[Path]:
        return list(self._folder.glob(f"{DAMAGED}*"))

    def _read_header(self) -> OutboxHeader | None:
        columns = "install, secret, seq, sent_seq, events, crc"
        row = self.execute(f"SELECT {columns} FROM meta").get
        if row is None:
            return None
        header = OutboxHeader(*row[:-1])
        if header.crc() != row[-1]:
            raise apsw.CorruptError("the outbox's header has a wrong checksum")
        return header

    def _first_header(self) -> OutboxHeader:
        header = OutboxHeader(*Identity.fresh(self._entropy))
        self._save_header(header)
        return header

    def _save_header(self, header: OutboxHeader) -> None:
        row = (*astuple(header), header.crc())
        self.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?)", row)

    def _check_in_place(self) -> None:
        """Raise where the file has been removed or replaced: SQLite would go on writing into it,
        and all of that would be gone when it is closed."""
        path = self._folder / DATABASE
        try:
            is_same = os.path.samestat(path.stat(), self._file)
        except OSError:
            is_same = False
        if not is_same:
            raise apsw.CantOpenError(
                f"{path}: expected the file that was opened, found it removed or replaced"
            )


def _empty_database() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(_TABLES)
    return connection


def _schema(connection: apsw.Connection) -> list[tuple[str, ...]]:
    """Return what defines tables and indexes; line breaks in the SQL do not count."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    return [tuple(" ".join(str(part).split()) for part in row) for row in connection.execute(query)]
