"""Making room in a full outbox: whole decisions are shed, chosen by a hash of their id.

A row of level n has survived n passes, each with probability 1/2, all decided by the same 64 bits
of its id. A pass halves the rows of the lowest level, so that all come to have nearly the same
weight. Were the oldest halved again and again, the few that stay would weigh thousands, and no sum
over them would mean anything.

A decision takes its outcomes along; one that updated its user's state stays, as an observation,
because without it no later decision of the user could be learned from. Observations are shed only
where they take more room than decisions, and leave a gap that is marked. Rows that were sent are
never touched: the collector may have them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import as_observation
from sanderling.outbox.database import OutboxHeader
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.records import EventRow
from sanderling.outbox.state_gaps import MAX_GAPS
from sanderling.outbox.state_table import CREATED_AT, UNSCRUBBED

ROWS_PER_TRANSACTION = 500
"""Rows of one transaction, so that the log and the memory for them stay small."""

MAX_LEVEL = 64
"""The highest level: the bits of the hash by which rows survive."""

TARGET_SHARE = 0.75
"""The share of the limit that a full outbox is shed down to."""

STATES_SHARE = 0.25
"""The share of the limit that user states may take."""

BYTES_PER_MARK = 2048
"""Bytes of the limit for each mark of a gap: a small outbox keeps few of them."""

_DECISIONS = "('decision')"
_BEHAVIOUR = "('observation', 'state_reset')"


def survives(id: str, level: int) -> bool:
    """Return whether an id survives `level` passes, 0 to 64: its hash begins with `level` zeros."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (MAX_LEVEL - level) == 0


def make_room(store: EventStore) -> bool:
    """Halve until at most three quarters of the limit are used.

    Return whether there is room for new events.
    """
    with suppress(OSError):
        store.delete_damaged()
    with store.transaction(durable=False):
        store.states.trim(
            int(STATES_SHARE * store.limit),
            min(MAX_GAPS, store.limit // BYTES_PER_MARK),
            keep=(CREATED_AT, UNSCRUBBED),
        )
    while store.used_bytes() > TARGET_SHARE * store.limit and _halve(store):
        pass
    return store.used_bytes() <= store.limit


@dataclass
class _Removed:
    """What one transaction of a pass has removed."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many events, by type."""

    decisions: list[str] = field(default_factory=list)
    """The ids of the decisions among them."""

    last_seq: int = 0
    """The highest of their numbers."""

    def add(self, row: EventRow) -> None:
        """Count one row."""
        self.counts[row.type] += 1
        self.last_seq = max(self.last_seq, row.seq)


def _halve(store: EventStore) -> bool:
    """Make one pass over the rows of the lowest level; return whether there were any.

    A pass that removes nothing does not mean that the next will not.
    """
    last_seq = store.header.sent_seq
    types, lowest = _next_level(store)
    condition = f"seq > ? AND type IN {types} AND level = ? ORDER BY seq LIMIT ?"
    while rows := list(store.rows(condition, (last_seq, lowest, ROWS_PER_TRANSACTION))):
        last_seq = rows[-1].seq
        removed = _Removed()
        with store.transaction(durable=False) as header:
            for row in rows:
                _pass(store, header, row, removed)
            if removed.counts:
                store.declare_removed(header, "full", removed.counts, removed.last_seq)
        store.losses.count("full", removed.counts.total())
        store.remember_shed(removed.decisions)
    return lowest is not None


def _next_level(store: EventStore) -> tuple[str, int | None]:
    """Return which types of rows to halve, and their lowest level; None where nothing may be shed.

    The types are behaviour, or decisions with their outcomes: those that take more room.
    """
    unsent = f"FROM event WHERE seq > {store.header.sent_seq}"
    may_be_shed = f"level < {MAX_LEVEL} AND type IN"
    size = f"ifnull(sum(length(line)) FILTER (WHERE level < {MAX_LEVEL} AND ({{}})), 0)"
    behaviour = size.format(f"type IN {_BEHAVIOUR}")
    decisions = size.format(
        f"type IN {_DECISIONS} OR decision IN (SELECT id {unsent} AND {may_be_shed} {_DECISIONS})"
    )
    is_mostly_behaviour = store.execute(f"SELECT {behaviour} > {decisions} {unsent}").get
    types = _BEHAVIOUR if is_mostly_behaviour else _DECISIONS
    return types, store.execute(f"SELECT min(level) {unsent} AND {may_be_shed} {types}").get


def _pass(store: EventStore, header: OutboxHeader, row: EventRow, removed: _Removed) -> None:
    """Let a row survive or remove it, a decision with its outcomes."""
    stored = row.intact()
    event = _decode(row)
    if stored is None or event is None:
        # A row that is damaged, or cannot be decoded, is of no use to training.
        _remove(store, header, row, removed)
        return

    level = row.level + 1
    if survives(stored.id, level):
        line = stored.line
        if isinstance(event, Decision):
            line = codec.encode(msgspec.structs.replace(event, pass_probability=0.5**level))
        store.rewrite(stored, line, "level = level + 1")
        return

    if isinstance(event, Decision):
        removed.decisions.append(stored.id)
    _remove(store, header, row, removed)
    for outcome in list(store.rows("decision = ? AND seq > ?", (stored.id, header.sent_seq))):
        _remove_outcome(store, header, outcome, removed)


def _remove(store: EventStore, header: OutboxHeader, row: EventRow, removed: _Removed) -> None:
    store.mark_gap_of(header, row)
    store.remove(header, row.seq)
    removed.add(row)


def _remove_outcome(
    store: EventStore, header: OutboxHeader, row: EventRow, removed: _Removed
) -> None:
    """Remove an outcome of a shed decision; one that updated a state stays as an observation."""
    stored = row.intact()
    event = _decode(row)
    if stored is not None and isinstance(event, Outcome) and event.updates_state:
        line = codec.encode(as_observation(event))
        store.rewrite(stored, line, "type = 'observation', decision = NULL")
    else:
        _remove(store, header, row, removed)


def _decode(row: EventRow) -> Event | None:
    stored = row.intact()
    try:
        return codec.decode(stored.line) if stored is not None else None
    except EventError:
        return None
