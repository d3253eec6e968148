"""The outbox's file: one SQLite database in WAL mode, written by one thread, every row with its own checksum.

Refuses to know threads, queues and networks. Each method that writes is one transaction, or says otherwise.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import msgspec

from sanderling.clock import Clock, Entropy, uuid7
from sanderling.contract import events as wire
from sanderling.contract.events import Event, Loss, Outcome
from sanderling.contract.seal import flush_path
from sanderling.errors import StorageError

SCHEMA = 1
DATABASE = "outbox.db"
ASIDE = "corrupt.db"
QUARANTINE_ROWS = 100
BALLAST_BYTES = 2 * 2**20
EMERGENCY_ROWS = 64

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


@dataclass(frozen=True)
class Pending:
    """One event that waits: its number, its id, and its encoded line, at most 64 KiB."""

    seq: int
    id: str
    line: bytes


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


@dataclass(frozen=True)
class Job:
    """Events and states that stand or fall together."""

    events: Sequence[Event]
    states: Mapping[str, bytes]


Emergency = Callable[[bool], None]
"""An action that may be told that the disk is full, and then goes about it in small steps."""


class Store:
    """The database of one state folder; raises `StorageError` when it cannot be opened, `apsw.Error` later."""

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock, entropy: Entropy) -> None:
        self.folder, self.limit, self.clock, self.entropy = folder, limit_bytes, clock, entropy
        self.boot = entropy(16).hex()
        self.lost: Counter[str] = Counter()
        self._handed: dict[str, int] = {}
        self._ballast = folder / "ballast"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / "outbox.lock")
            moved = self._open_or_reset()
            flush_path(folder)
        except (apsw.Error, OSError) as error:
            raise StorageError(
                f"expected a usable outbox in {folder}: {error}: free the disk or fix the rights"
            ) from error
        if moved:
            self.declare("outbox_reset", Counter())
        self._restore_ballast()

    def _open_or_reset(self) -> bool:
        try:
            self._open()
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.ConstraintError):
            self.db.close()
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    (self.folder / (DATABASE + suffix)).replace(self.folder / (ASIDE + suffix))
            self._open()
            return True
        return False

    def _open(self) -> None:
        path = str(self.folder / DATABASE)
        self.db = apsw.Connection(path)
        self.db.set_busy_timeout(2000)
        found = self.db.pragma("user_version")
        if found not in (0, SCHEMA):
            self.db.close()
            raise StorageError(f"{path}: expected schema {SCHEMA}, found {found}, of a later version: update the app")
        self.db.pragma("journal_mode", "wal")
        self.db.pragma("synchronous", "full")
        self.db.pragma("journal_size_limit", self.limit // 16)
        self.db.wal_autocheckpoint(min(1000, max(16, self.limit // 16 // 4096)))
        if self.db.execute("PRAGMA quick_check(1)").get != "ok":
            raise apsw.CorruptError("quick_check failed")
        self.db.execute("BEGIN IMMEDIATE;" + _TABLES + f"PRAGMA user_version={SCHEMA}; COMMIT")
        self.meta = self._read_meta() or self._first_meta()
        self._reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        self._reader.set_busy_timeout(2000)

    def _read_meta(self) -> Meta | None:
        row = self.db.execute("SELECT install, secret, seq, handed, events, bytes, crc FROM meta").get
        if row is None:
            return None
        meta = Meta(*row[:-1])
        if meta.crc() != row[-1]:
            raise apsw.CorruptError("the outbox's own record has a wrong checksum")
        return meta

    def _first_meta(self) -> Meta:
        meta = Meta(install=self.entropy(16).hex(), secret=self.entropy(32))
        self._save_meta(meta)
        return meta

    def _save_meta(self, meta: Meta) -> None:
        row = (meta.install, meta.secret, meta.seq, meta.handed, meta.events, meta.bytes, meta.crc())
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[Meta]:
        """Yield a working copy of the record; it and all rows become true together, on disk if `durable`."""
        self.db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self.db.execute("BEGIN IMMEDIATE")
        try:
            meta = self._read_meta() or replace(self.meta)
            yield meta
            self._save_meta(meta)
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        self.meta = meta

    def write(self, jobs: Sequence[Job], drops: Mapping[tuple[str, str], int], durable: bool) -> list[str]:
        """Number and store the events of `jobs`; return for each job why it was refused, or "".

        `drops`, (reason, kind) -> events never numbered before, are declared. A number is used up by every event,
        stored or dropped, so that the gaps in the numbers equal the declared losses.
        """
        lost = Counter(drops)
        with self.transaction(durable) as meta:
            refused = [self._write_job(meta, job, lost) for job in jobs]
            meta.seq += lost.total()
            for reason in sorted({reason for reason, _ in lost}):
                self.insert(meta, self.loss(reason, {kind: n for (why, kind), n in lost.items() if why == reason}))
        for (reason, _), count in (lost - Counter(drops)).items():
            self.lost[reason] += count
        return refused

    def _write_job(self, meta: Meta, job: Job, lost: Counter[tuple[str, str]]) -> str:
        refused = ""
        for event in job.events:
            fault = self.insert(meta, event)
            if fault is not None:
                refused = fault
                lost["unencodable", kind_of(event)] += 1
        for user, value in job.states.items():
            row = (user, value, zlib.crc32(value), meta.seq)
            self.db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row)
        return refused

    def insert(self, meta: Meta, event: Event) -> str | None:
        """Number and add one event, unless its id is already there; return why it cannot be stored, or None."""
        seq = meta.seq + 1
        try:
            line = wire.encode(msgspec.structs.replace(event, seq=seq))
        except (TypeError, ValueError, UnicodeEncodeError, msgspec.MsgspecError) as error:
            return f"expected an event that can be encoded, found {error}"
        if len(line) > wire.MAX_LINE:
            return f"expected an event of at most {wire.MAX_LINE} bytes, found {len(line)}"
        decision = event.decision if isinstance(event, Outcome) else None
        row = (seq, event.id, kind_of(event), decision, line, checksum(event.id, line))
        self.db.execute("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, 0, ?, ?)", row)
        if self.db.changes():
            meta.seq, meta.events, meta.bytes = seq, meta.events + 1, meta.bytes + len(line)
        return None

    def loss(self, reason: str, counts: Mapping[str, int]) -> Loss:
        """Build the event that declares a loss; `counts` maps decision, outcome, observation to events."""
        return Loss(
            id=uuid7(self.clock, self.entropy),
            install=self.meta.install,
            seq=1,
            clock=wire.Clock(self.clock.wall_ms(), self.clock.mono_ms(), self.boot),
            reason=reason[:512] or "unknown",
            decisions=counts.get("decision", 0),
            outcomes=counts.get("outcome", 0),
            observations=counts.get("observation", 0),
        )

    def declare(self, reason: str, counts: Mapping[str, int]) -> None:
        """Add one Loss event for events that had already been numbered, durably."""
        with self.transaction(durable=True) as meta:
            self.insert(meta, self.loss(reason, counts))
        self.lost[reason] += max(1, sum(counts.values()))

    def oldest(self, max_events: int, max_bytes: int) -> list[Pending]:
        """Return the oldest events, at least one if any waits, durable and marked as handed out before they leave.

        Shedding never touches what was handed out: the lab may have it already.
        """
        batch: list[Pending] = []
        rotten: list[int] = []
        size = 0
        query = "SELECT seq, id, line, crc FROM event ORDER BY seq LIMIT ?"
        for seq, id, line, crc in self.db.execute(query, (max_events,)):
            if checksum(id, line) != crc:
                rotten.append(seq)
                continue
            size += len(line)
            if batch and size > max_bytes:
                break
            batch.append(Pending(seq, id, line))
        for seq in rotten:
            self._set_aside(seq, "corrupt")
        if batch and batch[-1].seq > self.meta.handed:
            self._with_ballast(lambda _: self._hand_out(batch[-1].seq))
        self._handed = {pending.id: pending.seq for pending in batch}
        return batch

    def _hand_out(self, seq: int) -> None:
        with self.transaction(durable=True) as meta:
            meta.handed = max(meta.handed, seq)

    def acknowledge(self, ids: Collection[str]) -> int:
        """Delete the events with these ids, durably; return how many there were."""
        seqs = [seq for seq in (self._find(id) for id in ids) if seq is not None]
        self._with_ballast(lambda emergency: self._delete(seqs, EMERGENCY_ROWS if emergency else max(1, len(seqs))))
        self._restore_ballast()
        return len(seqs)

    def _delete(self, seqs: Sequence[int], chunk: int) -> None:
        """Delete in chunks; on a full disk small chunks and checkpoints let the write-ahead log reuse its own space."""
        for start in range(0, len(seqs), chunk):
            with self.transaction(durable=True) as meta:
                for seq in seqs[start : start + chunk]:
                    self.remove(meta, seq)
            if chunk == EMERGENCY_ROWS:
                self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)

    def remove(self, meta: Meta, seq: int) -> None:
        """Delete one row inside a transaction."""
        for (size,) in self.db.execute("DELETE FROM event WHERE seq = ? RETURNING length(line)", (seq,)):
            meta.events, meta.bytes = meta.events - 1, meta.bytes - size

    def quarantine(self, id: str, reason: str) -> bool:
        """Set one event aside and declare it lost; return False when there is no such event."""
        seq = self._find(id)
        if seq is not None:
            self._with_ballast(lambda _: self._set_aside(seq, reason))
        return seq is not None

    def _set_aside(self, seq: int, reason: str) -> None:
        with self.transaction(durable=True) as meta:
            kind = self.db.execute("SELECT kind FROM event WHERE seq = ?", (seq,)).get
            keep = "INSERT OR REPLACE INTO quarantine SELECT seq, id, ?, line FROM event WHERE seq = ?"
            self.db.execute(keep, (reason, seq))
            trim = "DELETE FROM quarantine WHERE seq <= (SELECT seq FROM quarantine ORDER BY seq DESC LIMIT 1 OFFSET ?)"
            self.db.execute(trim, (QUARANTINE_ROWS,))
            self.remove(meta, seq)
            self.insert(meta, self.loss(reason, {kind: 1}))
        self.lost[reason] += 1

    def _find(self, id: str) -> int | None:
        if id in self._handed:
            return self._handed[id]
        found: int | None = self.db.execute("SELECT seq FROM event WHERE id = ?", (id,)).get
        return found

    def state(self, user: str) -> bytes | None:
        """Return the last stored state, or None; safe beside the writing thread, one caller at a time."""
        row = self._reader.execute("SELECT value, crc FROM state WHERE user = ?", (user,)).get
        return row[0] if row is not None and zlib.crc32(row[0]) == row[1] else None

    def used(self) -> int:
        """Return the bytes of the database's pages that hold something."""
        pages: int = self.db.pragma("page_count") - self.db.pragma("freelist_count")
        return pages * 4096

    def _with_ballast(self, action: Emergency) -> None:
        """Run `action(False)`; on a full disk give the ballast's space back and run `action(True)`."""
        try:
            action(False)
        except apsw.FullError:
            self._ballast.unlink(missing_ok=True)
            action(True)

    def _restore_ballast(self) -> None:
        size = min(BALLAST_BYTES, self.limit // 8)
        with suppress(OSError):
            if not self._ballast.exists() and shutil.disk_usage(self.folder).free > 4 * size:
                self._ballast.write_bytes(bytes(size))

    def close(self) -> None:
        """Close the file and let another engine have the folder."""
        self._reader.close()
        self.db.close()
        self._lock.close()

    def abandon(self) -> None:
        """Keep this process from ever closing the connections: after a fork they belong to the parent."""
        for connection in (self._reader, self.db, self._lock):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def kind_of(event: Event) -> str:
    """Return decision, outcome, observation or loss."""
    return str(type(event).__struct_config__.tag)


def checksum(id: str, line: bytes) -> int:
    """Return the CRC-32 that a row carries over its id and its line."""
    return zlib.crc32(line, zlib.crc32(id.encode()))


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
