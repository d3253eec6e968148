"""The rows of the outbox: numbered events with checksums, and user states.

One thread calls it, except where a method says that it is thread-safe.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
from msgspec import UNSET

from sanderling.errors import BundleError, EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.events.pending_decision import PendingDecision
from sanderling.events.schema import Loss, Outcome
from sanderling.events.semantics import as_observation, moved_by, type_of
from sanderling.outbox.ballast import Ballast
from sanderling.outbox.database import Database, OutboxHeader
from sanderling.outbox.folder_lock import unusable
from sanderling.outbox.identity import Identity
from sanderling.outbox.losses import Dropped, Losses
from sanderling.outbox.records import EventRow, QueuedEvent, StoredEvent, WriteRequest, checksum
from sanderling.outbox.state_gaps import StateGaps
from sanderling.outbox.state_table import GAP, UNSCRUBBED, StateTable
from sanderling.runtime.clock import Clock, Entropy, uuid7

MAX_SHED = 10_000
"""Shed decisions that are remembered; the reward of an older one is stored, and has no decision."""

EMERGENCY_ROWS = 8
"""Rows deleted in one transaction on a full disk: their log must fit into the ballast's space."""

ROOM_FOR_EVENT = 2048
"""Bytes of free pages in the file for each event, about, before the ballast is used for a write."""

DECISION_SHED = "its decision was shed when the outbox was full"
IDENTITY_RESET = "this install has taken a new identity since"
# Quotes inside JSON strings are escaped, so no text of an event can contain this.
_USER = re.compile(rb'"user":"([0-9a-f]{32})"')


class EventStore:
    """The rows of one state folder. Raises `StorageError` when it cannot be opened, else
    `apsw.Error`.

    A method that takes a header runs inside a transaction; any other that writes is one of its own.
    """

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock, entropy: Entropy) -> None:
        self.limit = limit_bytes
        self.losses = Losses()
        self.shed_decisions: dict[str, None] = {}
        self._declarations: dict[str, str] | None = None  # by reason the id; None: not read yet
        self.boot = BootClock(clock, entropy)  # of this run under the current identity
        self._clock = clock
        self._entropy = entropy
        self._database = Database(folder, limit_bytes, entropy)
        try:
            self.states = StateTable(self._database)
            self.gaps = StateGaps(self.states)
            self.ballast = Ballast(folder, limit_bytes, self._database, entropy)
            if self._database.was_reset:
                self._declare_reset()
            self.ballast.fit()
        except (apsw.Error, OSError) as error:
            self._database.close()
            raise unusable(folder, error) from error

    @property
    def header(self) -> OutboxHeader:
        """The header as of the last commit. Thread-safe."""
        return self._database.header

    def transaction(self, durable: bool) -> AbstractContextManager[OutboxHeader]:
        """Commit the yielded copy of the header with all rows, atomically; on disk if `durable`."""
        return self._database.transaction(durable)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> apsw.Cursor:
        """Run a statement on the rows."""
        return self._database.execute(sql, parameters)

    def rows(self, condition: str, parameters: Sequence[Any] = ()) -> Iterator[EventRow]:
        """Yield the events that an SQL condition, with order and limit, selects."""
        columns = (
            "seq, CAST(id AS BLOB), ifnull(CAST(type AS BLOB), x''), level, CAST(line AS BLOB), crc"
        )
        query = f"SELECT {columns} FROM event WHERE {condition}"
        for seq, id, type, level, line, crc in self.execute(query, parameters):
            yield EventRow(seq, id, type.decode(errors="replace"), level, line, crc)

    def used_bytes(self) -> int:
        """Return the bytes that count against the limit."""
        return self._database.used_bytes()

    def delete_damaged(self) -> None:
        """Delete a damaged file that was moved aside at the opening; raises `OSError`."""
        self._database.delete_damaged()

    def vacuum(self) -> None:
        """Rewrite the file without unused pages: SQLite leaves deleted bytes in them."""
        self.execute("VACUUM")
        self._database.checkpoint()

    def close(self) -> None:
        """Close the file and release the folder."""
        self._database.close()

    def drop(self, reason: str, events: Sequence[QueuedEvent]) -> None:
        """Count events that will not be written, and note their gaps. Thread-safe."""
        self.losses.drop(reason, events)
        self.note_gaps(events)

    def note_gaps(self, events: Iterable[QueuedEvent]) -> None:
        """Add the gaps that these events leave in their users' states. Thread-safe."""
        install = self.header.install
        self.gaps.add(moved_by(event for event in events if event.install == install))

    def write(self, requests: Sequence[WriteRequest], durable: bool) -> list[str]:
        """Number and store events; return for each request why it was refused, or "".

        New gaps are marked and dropped events declared in the same transaction. Every event uses up
        a number, stored or dropped, so that the missing numbers equal the declared losses. On a
        full disk the log may grow into the ballast's space if the file itself has room.
        """
        try:
            return self._write(requests, durable)
        except apsw.FullError:
            n_events = sum(len(request.events) for request in requests)
            has_room = self._database.free_bytes() > ROOM_FOR_EVENT * n_events
            with self.ballast.released():
                if has_room:
                    return self._write(requests, durable)
            raise

    def _write(self, requests: Sequence[WriteRequest], durable: bool) -> list[str]:
        gaps = self.gaps.unmarked()
        dropped = self.losses.undeclared()
        refused_events: Dropped = Counter()
        with self.transaction(durable) as header:
            self.gaps.mark(header, gaps)
            reasons = [self._write_request(header, each, refused_events) for each in requests]
            lost = dropped + refused_events
            for reason in sorted({reason for reason, _ in lost}):
                counts = Counter({type: n for (why, type), n in lost.items() if why == reason})
                self.declare_dropped(header, reason, counts)

        self.gaps.confirm_marked(gaps)
        self.losses.confirm_declared(dropped)
        for (reason, _), n_events in refused_events.items():
            self.losses.count(reason, n_events)
        for request, reason in zip(requests, reasons, strict=True):
            if reason == IDENTITY_RESET:
                self.losses.count("identity_reset", len(request.events))
        return reasons

    def _write_request(self, header: OutboxHeader, request: WriteRequest, refused: Dropped) -> str:
        """Store the events and states of one request; return why some were refused, or ""."""
        if request.install not in (None, header.install):
            return IDENTITY_RESET

        reason = ""
        for event in request.events:
            if isinstance(event, Outcome) and event.decision in self.shed_decisions:
                reason = DECISION_SHED
                if not event.updates_state:
                    refused["full", "outcome"] += 1
                    continue
                event = as_observation(event)
            fault = self.insert(header, event)
            if fault is not None:
                reason = fault
                refused["unencodable", type_of(event)] += 1
                self.gaps.mark(header, moved_by([event]))

        for key, value in request.states.items():
            if key.startswith(GAP) and key.removeprefix(GAP) in self.gaps:
                continue  # there has been another loss since this gap was cleared
            if value:
                self.states.put(header, key, value)
            else:
                self.states.delete([key])
        return reason

    def insert(
        self, header: OutboxHeader, queued: QueuedEvent, seq: int | None = None
    ) -> str | None:
        """Number and add one event, unless its id is already there; `seq` reuses a number.

        Return why it cannot be stored, or None.
        """
        seq = seq or header.seq + 1
        try:
            event = queued.event if isinstance(queued, PendingDecision) else queued
            line = codec.encode(msgspec.structs.replace(event, seq=seq))
        except (TypeError, ValueError, msgspec.MsgspecError, BundleError) as error:
            return f"expected an event that can be built and encoded, found {error}"
        if len(line) > wire.MAX_LINE:
            return f"expected an event of at most {wire.MAX_LINE} bytes, found {len(line)}"

        decision = event.decision if isinstance(event, Outcome) else None
        row = (seq, event.id, type_of(event), decision, line, checksum(event.id, line))
        add = (
            "INSERT INTO event VALUES (?, ?, ?, ?, 0, ?, ?) ON CONFLICT (id) DO NOTHING"
            " RETURNING seq"
        )
        if self.execute(add, row).get is not None:
            header.seq = max(header.seq, seq)
            header.events += 1
        return None

    def remove(self, header: OutboxHeader, seq: int) -> None:
        """Delete one event."""
        if self.execute("DELETE FROM event WHERE seq = ? RETURNING seq", (seq,)).get is not None:
            header.events -= 1

    def rewrite(self, old: StoredEvent, line: bytes, changes: str) -> None:
        """Replace the line of an event, and make other `changes`, as SQL, of its row."""
        update = f"UPDATE event SET {changes}, line = ?, crc = ? WHERE seq = ?"
        self.execute(update, (line, checksum(old.id, line), old.seq))

    def remember_shed(self, decisions: Iterable[str]) -> None:
        """Remember shed decisions, the last of many, so that no reward of them is promised."""
        self.shed_decisions |= dict.fromkeys(decisions)
        while len(self.shed_decisions) > MAX_SHED:
            del self.shed_decisions[next(iter(self.shed_decisions))]

    def mark_gap_of(self, header: OutboxHeader, row: EventRow) -> None:
        """Mark the gap that a row leaves, if any; of a damaged row, as far as it can be read."""
        if row.type in ("decision", "loss"):
            return
        event = row.intact()
        # As for `_USER`, the field itself is the only place where these bytes can stand.
        if event is not None and b'"updates_state":false' in event.line:
            return
        self.gaps.mark(header, (name.decode() for name in _USER.findall(row.line or b"")))

    def loss(self, reason: str, counts: Mapping[str, int], lost_seqs: Sequence[int] = ()) -> Loss:
        """Return the event that declares a loss of `counts` events by type.

        `lost_seqs` are the numbers of those that the collector may have nevertheless.
        """
        clock = self.boot.read()
        return Loss(
            id=uuid7(clock.wall, self._entropy),
            install=self.header.install,
            seq=1,  # a placeholder: `insert` assigns the number
            clock=clock,
            reason=reason[: wire.MAX_NAME] or "unknown",
            decisions=counts.get("decision", 0),
            outcomes=counts.get("outcome", 0),
            observations=counts.get("observation", 0) + counts.get("state_reset", 0),
            lost_seqs=list(lost_seqs) or UNSET,
        )

    def declare_dropped(self, header: OutboxHeader, reason: str, counts: Counter[str]) -> None:
        """Declare events, by type, that were never numbered.

        Each uses up a number, so that the missing numbers equal the declared losses.
        """
        earlier = self._take_declaration(header, reason)
        # The number of the earlier declaration is missing from now on: it is one of those.
        header.seq += counts.total() - (earlier is not None)
        self._declare(header, reason, counts, earlier)

    def declare_removed(
        self, header: OutboxHeader, reason: str, counts: Counter[str], last_seq: int
    ) -> None:
        """Declare events, by type, that were removed; `last_seq` is the highest of their numbers.

        A declaration counts numbers below its own. Added to an earlier one it takes over the
        highest number that it declares, and the earlier one's is missing in its place.
        """
        earlier = self._take_declaration(header, reason)
        seq = None if earlier is None else max(last_seq, earlier.seq)
        self._declare(header, reason, counts, earlier, seq)

    def _declare(
        self,
        header: OutboxHeader,
        reason: str,
        counts: Counter[str],
        earlier: Loss | None,
        seq: int | None = None,
    ) -> None:
        if earlier is not None:
            counts = counts + Counter(
                decision=earlier.decisions,
                outcome=earlier.outcomes,
                observation=earlier.observations,
            )
        loss = self.loss(reason, counts)
        self.insert(header, loss, seq)
        self._declaration_ids(header)[loss.reason] = loss.id

    def _take_declaration(self, header: OutboxHeader, reason: str) -> Loss | None:
        """Remove and return the unsent declaration of a reason, if there is one.

        A small outbox that is full for weeks would otherwise hold nothing but declarations.
        """
        id = self._declaration_ids(header).get(reason, "")
        for row in list(self.rows("id = ? AND seq > ?", (id, header.sent_seq))):
            loss = _as_loss(row)
            if loss is not None and loss.install == header.install:
                self.remove(header, row.seq)
                return loss
        return None

    def _declaration_ids(self, header: OutboxHeader) -> dict[str, str]:
        """Return by reason the id of the declaration to which losses are added next."""
        if self._declarations is None:
            unsent = self.rows("type = 'loss' AND seq > ?", (header.sent_seq,))
            losses = [loss for loss in map(_as_loss, unsent) if loss is not None]
            self._declarations = {loss.reason: loss.id for loss in losses}
        return self._declarations

    def _declare_reset(self) -> None:
        with self.transaction(durable=True) as header:
            self.insert(header, self.loss("outbox_reset", {}))
        self.losses.count("outbox_reset", 1)

    def oldest(self, max_events: int, max_bytes: int) -> list[StoredEvent]:
        """Return the oldest events, at least one if any is stored.

        Before they leave they are durable and marked as sent: shedding never touches them then,
        because the collector may have them.
        """
        batch, damaged = self._read_oldest(max_events, max_bytes)
        while damaged and not batch:
            batch, damaged = self._read_oldest(max_events, max_bytes)
        if batch and batch[-1].seq > self.header.sent_seq:
            self.ballast.run(lambda: self.mark_sent(batch[-1].seq))
        return batch

    def _read_oldest(self, max_events: int, max_bytes: int) -> tuple[list[StoredEvent], int]:
        """Return the intact events of the first rows, and how many damaged rows were removed."""
        batch: list[StoredEvent] = []
        damaged: list[EventRow] = []
        size = 0
        for row in self.rows("true ORDER BY seq LIMIT ?", (max_events,)):
            event = row.intact()
            if event is None:
                damaged.append(row)
                continue
            size += len(event.line)
            if batch and size > max_bytes:
                break
            batch.append(event)

        for row in damaged:
            self._remove_as_lost(row, "corrupt")
        return batch, len(damaged)

    def mark_sent(self, seq: int) -> None:
        """Record that the events up to this number may have left the device."""
        with self.transaction(durable=True) as header:
            header.sent_seq = max(header.sent_seq, seq)

    def acknowledge(self, ids: Collection[str]) -> int:
        """Delete the events with these ids, durably; return how many there were."""
        seqs = [seq for seq in map(self._seq_of, ids) if seq is not None]
        try:
            self._delete(seqs)
        except apsw.FullError:
            with self.ballast.released():
                self._delete_in_steps(seqs)
        return len(seqs)

    def _delete(self, seqs: Sequence[int]) -> None:
        with self.transaction(durable=True) as header:
            for seq in seqs:
                self.remove(header, seq)

    def _delete_in_steps(self, seqs: Sequence[int]) -> None:
        """Delete events a few at a time; a checkpoint after each empties the log."""
        for start in range(0, len(seqs), EMERGENCY_ROWS):
            self._delete(seqs[start : start + EMERGENCY_ROWS])
            with suppress(apsw.Error):  # the deletion stands; only the log grows
                self._database.checkpoint()

    def reject(self, id: str, reason: str) -> None:
        """Delete an event that the collector will never store, if it is there; declare it lost."""
        for row in list(self.rows("seq = ?", (self._seq_of(id),))):
            self.ballast.run(partial(self._remove_as_lost, row, reason))

    def _remove_as_lost(self, row: EventRow, reason: str) -> None:
        reason = reason[: wire.MAX_NAME]
        with self.transaction(durable=True) as header:
            self.mark_gap_of(header, row)
            self.remove(header, row.seq)
            self.insert(header, self.loss(reason, {row.type: 1}, [row.seq]))
        self.losses.count(reason, 1)

    def _seq_of(self, id: str) -> int | None:
        seq: int | None = self.execute("SELECT seq FROM event WHERE id = ?", (id,)).get
        return seq

    def delete_all(self) -> None:
        """Delete everything and take a new identity; a mark says that the bytes are still there."""
        # Before the new id is visible: a boot id must not appear under two install ids.
        self.boot = BootClock(self._clock, self._entropy)
        with self.transaction(durable=True) as header:
            for table in ("event", "state"):
                self.execute(f"DELETE FROM {table}")
            header.install, header.secret = Identity.fresh(self._entropy)
            header.seq = header.sent_seq = header.events = 0
            self.states.put(header, UNSCRUBBED, b"")

        self.gaps.discard_all()
        self.losses.forget_undeclared()


def _as_loss(row: EventRow) -> Loss | None:
    """Return a row's declaration; None where it is damaged, or names numbers."""
    stored = row.intact()
    try:
        event = codec.decode(stored.line) if stored is not None else None
    except EventError:
        return None
    return event if isinstance(event, Loss) and not event.lost_seqs else None
