"""The rows of the outbox: numbered events with their checksums, the users' states, and what was set aside.

Called by one thread, but for `state`. Refuses to know threads, queues and networks.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
import msgspec
from msgspec import UNSET

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.events.schema import Event, Loss, Outcome
from sanderling.events.semantics import as_observation, kind_of, moved_by
from sanderling.outbox.database import PAGE_BYTES, Database, OutboxHeader
from sanderling.outbox.folder_lock import unusable
from sanderling.runtime.clock import Clock, Entropy, uuid7

QUARANTINE_ROWS = 100
MAX_REASON = 512
BALLAST_BYTES = 2 * 2**20
EMERGENCY_ROWS = 8
ROOM_FOR_EVENT = 2048
LEAST_PAGES = 8
TAKEN_OVER = 64
BORN = "born"
GAP = "gap:"
MOST_GAPS = 10_000
MOST_SHED = 10_000
_USER = re.compile(rb'"user":"([0-9a-f]{32})"')
DECISION_SHED = "its decision was given up when the outbox was full"
IDENTITY_RESET = "this install has begun anew since, under another name"


@dataclass(frozen=True)
class StoredEvent:
    """One event that waits: its number, its id, and its encoded line, at most 256 KiB."""

    seq: int
    id: str
    line: bytes


@dataclass(frozen=True)
class WriteRequest:
    """Events and states that are written atomically; where an install is named, only under that name.

    `done` is set once they are on disk, or never will be; without it nobody waits.
    """

    events: Sequence[Event]
    states: Mapping[str, bytes]
    install: str | None = None
    done: Future[None] | None = None

    def concerns(self, names: Set[str], keys: Set[str]) -> bool:
        """Tell whether it holds an event of one of these pseudonyms, or nothing but a state under one of these keys."""
        if not self.events:
            return not keys.isdisjoint(self.states)
        return any(getattr(event, "user", "") in names for event in self.events)


Emergency = Callable[[bool], None]
"""An action that may be told that the disk is full, and then goes about it in small steps."""


class EventStore:
    """The rows of one state folder; raises `StorageError` when it cannot be opened, `apsw.Error` later.

    Each method that writes is one transaction, or says otherwise. `lost` counts lost events by reason, since opening.
    """

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock, entropy: Entropy) -> None:
        self.folder, self.limit, self.clock, self.entropy = folder, limit_bytes, clock, entropy
        self.boot = BootClock(clock, entropy)
        self.lost: Counter[str] = Counter()
        self.database = Database(folder, limit_bytes, entropy)
        self.sent_seq: dict[str, int] = {}
        self.shed: dict[str, None] = {}
        self._ballast = folder / "ballast"
        self._ballast_bytes = 0
        try:
            self.gaps = {key.removeprefix(GAP) for key in self.states(GAP)}
            if self.database.was_reset:
                self._declare_reset()
            self._fit_ballast()
        except (apsw.Error, OSError) as error:
            self.database.close()
            raise unusable(folder, error) from error

    @property
    def meta(self) -> OutboxHeader:
        """The record as of the last commit."""
        return self.database.meta

    def write(
        self,
        jobs: Sequence[WriteRequest],
        drops: Mapping[tuple[str, str], int],
        gaps: Collection[str],
        durable: bool,
    ) -> list[str]:
        """Number and store the events of `jobs`; return for each job why it was refused, or "".

        `drops`, (reason, kind) -> events never numbered before, are declared, and `gaps` marked first. A number is used
        up by every event, stored or dropped, so that the gaps in the numbers equal the declared losses. On a full disk
        the log may grow into the ballast's space if the file itself has room.
        """
        try:
            return self._write(jobs, drops, gaps, durable)
        except apsw.FullError:
            roomy = self.database.free() > ROOM_FOR_EVENT * sum(len(job.events) for job in jobs)
            with self._given_up_ballast():
                if roomy:
                    return self._write(jobs, drops, gaps, durable)
            raise

    def _write(
        self,
        jobs: Sequence[WriteRequest],
        drops: Mapping[tuple[str, str], int],
        gaps: Collection[str],
        durable: bool,
    ) -> list[str]:
        lost = Counter(drops)
        with self.database.transaction(durable) as meta:
            for name in gaps:
                self.mark_gap(meta, name)
            refused = [self._write_job(meta, job, lost) for job in jobs]
            meta.seq += lost.total()
            for reason in sorted({reason for reason, _ in lost}):
                self.insert(
                    meta,
                    self.loss(
                        reason, {kind: n for (why, kind), n in lost.items() if why == reason}
                    ),
                )
        for (reason, _), count in (lost - Counter(drops)).items():
            self.lost[reason] += count
        self.lost["begun_anew"] += sum(
            len(job.events) for job, why in zip(jobs, refused, strict=True) if why == IDENTITY_RESET
        )
        return refused

    def _write_job(
        self, meta: OutboxHeader, job: WriteRequest, lost: Counter[tuple[str, str]]
    ) -> str:
        if job.install not in (None, meta.install):
            return IDENTITY_RESET
        refused = ""
        for event in job.events:
            if isinstance(event, Outcome) and event.decision in self.shed:
                refused = DECISION_SHED
                if not event.updates_state:
                    lost["full", "outcome"] += 1
                    continue
                event = as_observation(event)
            fault = self.insert(meta, event)
            if fault is not None:
                refused = fault
                lost["unencodable", kind_of(event)] += 1
                for name in moved_by([event]):
                    self.mark_gap(meta, name)
        for key, value in job.states.items():
            row = (key, value, zlib.crc32(value), meta.seq)
            if key.startswith(GAP) and key.removeprefix(GAP) in self.gaps:
                continue  # another gap has come since this one was mended
            if value:
                self.database.writer.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row
                )
            else:
                self.database.writer.execute("DELETE FROM state WHERE user = ?", (key,))
        return refused

    def insert(self, meta: OutboxHeader, event: Event) -> str | None:
        """Number and add one event, unless its id is already there; return why it cannot be stored, or None."""
        seq = meta.seq + 1
        try:
            line = codec.encode(msgspec.structs.replace(event, seq=seq))
        except (TypeError, ValueError, UnicodeEncodeError, msgspec.MsgspecError) as error:
            return f"expected an event that can be encoded, found {error}"
        if len(line) > wire.MAX_LINE:
            return f"expected an event of at most {wire.MAX_LINE} bytes, found {len(line)}"
        decision = event.decision if isinstance(event, Outcome) else None
        row = (seq, event.id, kind_of(event), decision, line, checksum(event.id, line))
        add = "INSERT INTO event VALUES (?, ?, ?, ?, 0, ?, ?) ON CONFLICT (id) DO NOTHING"
        self.database.writer.execute(add, row)
        if self.database.writer.changes():
            meta.seq, meta.events, meta.bytes = seq, meta.events + 1, meta.bytes + len(line)
        return None

    def mark_gap(self, meta: OutboxHeader, name: str) -> None:
        """Note, inside a transaction, that the lab cannot rebuild the state of a pseudonym: what moved it was lost."""
        self.database.writer.execute(
            "INSERT OR REPLACE INTO state VALUES (?, x'', 0, ?)", (GAP + name, meta.seq)
        )
        self.note_gaps({name})

    def note_shed(self, decisions: Iterable[str]) -> None:
        """Remember decisions that were given up, the last of many: no reward of them is to be promised any more."""
        self.shed |= dict.fromkeys(decisions)
        while len(self.shed) > MOST_SHED:
            del self.shed[next(iter(self.shed))]

    def note_gaps(self, names: Set[str]) -> None:
        """Remember gaps for as long as this process lives; of too many, some are forgotten."""
        self.gaps |= names
        while len(self.gaps) > MOST_GAPS:
            self.gaps.pop()

    def mark_gap_of(self, meta: OutboxHeader, seq: int) -> None:
        """Mark the gap that a row will leave, if it may leave one; of a rotten row, as far as that can be read."""
        query = "SELECT CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event WHERE seq = ? AND kind NOT IN (?, ?)"
        for id, line, crc in list(self.database.writer.execute(query, (seq, "decision", "loss"))):
            if sound(id, line, crc) and b'"updates_state":false' in line:
                continue
            for name in _USER.findall(line or b""):
                self.mark_gap(meta, name.decode())

    def loss(self, reason: str, counts: Mapping[str, int], lost_seqs: Sequence[int] = ()) -> Loss:
        """Build the event that declares a loss; `counts` maps decision, outcome, observation to events.

        `lost_seqs` are those of them that the lab may have all the same.
        """
        clock = self.boot.read()
        return Loss(
            id=uuid7(clock.wall, self.entropy),
            install=self.meta.install,
            seq=1,
            clock=clock,
            reason=reason[:MAX_REASON] or "unknown",
            decisions=counts.get("decision", 0),
            outcomes=counts.get("outcome", 0),
            observations=counts.get("observation", 0) + counts.get("state_reset", 0),
            lost_seqs=list(lost_seqs) or UNSET,
        )

    def _declare_reset(self) -> None:
        with self.database.transaction(durable=True) as meta:
            self.insert(meta, self.loss("outbox_reset", {}))
        self.lost["outbox_reset"] += 1

    def oldest(self, max_events: int, max_bytes: int) -> list[StoredEvent]:
        """Return the oldest events, at least one if any waits, durable and marked as handed out before they leave.

        Shedding never touches what was handed out: the lab may have it already.
        """
        batch, rotten = self._first(max_events, max_bytes)
        while rotten and not batch:
            batch, rotten = self._first(max_events, max_bytes)
        if batch and batch[-1].seq > self.meta.sent_seq:
            self.with_ballast(lambda _: self._hand_out(batch[-1].seq))
        self.sent_seq = {pending.id: pending.seq for pending in batch}
        return batch

    def _first(self, max_events: int, max_bytes: int) -> tuple[list[StoredEvent], list[int]]:
        """Return the sound ones of the first rows, and the numbers of the others, which it sets aside."""
        batch: list[StoredEvent] = []
        rotten: list[int] = []
        size = 0
        query = (
            "SELECT seq, CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event ORDER BY seq LIMIT ?"
        )
        for seq, id, line, crc in self.database.writer.execute(query, (max_events,)):
            if not sound(id, line, crc):
                rotten.append(seq)
                continue
            size += len(line)
            if batch and size > max_bytes:
                break
            batch.append(StoredEvent(seq, id.decode(), line))
        for seq in rotten:
            self._set_aside(seq, "corrupt")
        return batch, rotten

    def _hand_out(self, seq: int) -> None:
        with self.database.transaction(durable=True) as meta:
            meta.sent_seq = max(meta.sent_seq, seq)

    def acknowledge(self, ids: Collection[str]) -> int:
        """Delete the events with these ids, durably; return how many there were."""
        seqs = [seq for seq in (self._find(id) for id in ids) if seq is not None]
        self.with_ballast(lambda emergency: self._delete(seqs, emergency))
        return len(seqs)

    def _delete(self, seqs: Sequence[int], emergency: bool) -> None:
        """Delete at once; in an emergency in small chunks, with checkpoints that let the log reuse its own space."""
        chunk = EMERGENCY_ROWS if emergency else max(1, len(seqs))
        for start in range(0, len(seqs), chunk):
            with self.database.transaction(durable=True) as meta:
                for seq in seqs[start : start + chunk]:
                    self.remove(meta, seq)
            if emergency:
                with suppress(
                    apsw.Error
                ):  # the deletion stands; without a checkpoint the log only grows
                    self.database.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)

    def remove(self, meta: OutboxHeader, seq: int) -> None:
        """Delete one row inside a transaction."""
        for (size,) in self.database.writer.execute(
            "DELETE FROM event WHERE seq = ? RETURNING length(line)", (seq,)
        ):
            meta.events, meta.bytes = meta.events - 1, meta.bytes - size

    def quarantine(self, id: str, reason: str) -> bool:
        """Set one event aside and declare it lost; return False when there is no such event."""
        seq = self._find(id)
        if seq is not None:
            self.with_ballast(lambda _: self._set_aside(seq, reason))
        return seq is not None

    def _set_aside(self, seq: int, reason: str) -> None:
        reason = reason[:MAX_REASON]
        with self.database.transaction(durable=True) as meta:
            loss = self._loss_of(seq, reason)
            self.mark_gap_of(meta, seq)
            keep = (
                "INSERT OR REPLACE INTO quarantine SELECT seq, id, ?, line FROM event WHERE seq = ?"
            )
            self.database.writer.execute(keep, (reason, seq))
            trim = "DELETE FROM quarantine WHERE seq <= (SELECT seq FROM quarantine ORDER BY seq DESC LIMIT 1 OFFSET ?)"
            self.database.writer.execute(trim, (QUARANTINE_ROWS,))
            self.remove(meta, seq)
            self.insert(meta, loss)
        self.lost[reason] += 1

    def _loss_of(self, seq: int, reason: str) -> Loss:
        """Declare one event; of a declaration, all that it declared, and itself as one more of those.

        One that is damaged is not taken over, nor a long one: it may be its length that is refused, and the next would
        be longer.
        """
        query = "SELECT CAST(kind AS BLOB), CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event WHERE seq = ?"
        kind, id, line, crc = next(iter(self.database.writer.execute(query, (seq,))))
        old = codec.decode(line) if kind == b"loss" and sound(id, line, crc) else None
        if not isinstance(old, Loss) or len(old.lost_seqs or ()) >= TAKEN_OVER:
            return self.loss(reason, {(kind or b"").decode(errors="replace"): 1}, [seq])
        counts = {
            "decision": old.decisions,
            "outcome": old.outcomes,
            "observation": old.observations + 1,
        }
        return self.loss(old.reason, counts, [*(old.lost_seqs or ()), seq])

    def _find(self, id: str) -> int | None:
        if id in self.sent_seq:
            return self.sent_seq[id]
        found: int | None = self.database.writer.execute(
            "SELECT seq FROM event WHERE id = ?", (id,)
        ).get
        return found

    def state(self, user: str) -> bytes | None:
        """Return the last stored state, or None; safe beside the writing thread, one caller at a time."""
        row = self.database.reader.execute(
            "SELECT CAST(value AS BLOB), crc FROM state WHERE user = ?", (user,)
        ).get
        return (
            row[0]
            if row is not None and row[0] is not None and zlib.crc32(row[0]) == row[1]
            else None
        )

    def states(self, prefix: str) -> dict[str, bytes]:
        """Return the stored states whose keys begin with an ASCII prefix; what is damaged is left out."""
        query = "SELECT user, CAST(value AS BLOB), crc FROM state WHERE user >= ? AND user < ?"
        rows = self.database.reader.execute(query, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)))
        return {
            key: value for key, value, crc in rows if value is not None and zlib.crc32(value) == crc
        }

    def with_ballast(self, action: Emergency) -> None:
        """Run `action(False)`; on a full disk give the ballast's space back and run `action(True)`."""
        try:
            action(False)
        except apsw.FullError:
            with self._given_up_ballast():
                action(True)

    @contextmanager
    def _given_up_ballast(self) -> Iterator[None]:
        """Give the ballast's space back for a while; fold the log into the file before it is taken again."""
        self._ballast.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(apsw.Error):
                self.database.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            with suppress(OSError):
                self._ballast.write_bytes(self.entropy(self._ballast_bytes))

    def _fit_ballast(self) -> None:
        """Occupy a part of what is free, to give back on a full disk; in bytes that do not compress.

        The log is folded into the file before it says more than the ballast's space can take.
        """
        size = self._ballast.stat().st_size if self._ballast.exists() else 0
        with suppress(OSError):
            free = shutil.disk_usage(self.folder).free + size
            self._ballast_bytes = max(size, min(BALLAST_BYTES, self.limit // 8, free // 4))
            if size < self._ballast_bytes:
                self._ballast.write_bytes(self.entropy(self._ballast_bytes))
        self.database.writer.wal_autocheckpoint(
            max(LEAST_PAGES, self._ballast_bytes // 2 // PAGE_BYTES)
        )


def checksum(id: str, line: bytes) -> int:
    """Return the CRC-32 that a row carries over its id and its line."""
    return zlib.crc32(line, zlib.crc32(id.encode()))


def sound(id: bytes | None, line: bytes | None, crc: object) -> bool:
    """Tell whether a row, read as plain bytes, is what was written: a flipped bit may change even a value's type."""
    return id is not None and line is not None and zlib.crc32(line, zlib.crc32(id)) == crc
