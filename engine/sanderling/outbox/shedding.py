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

import msgspec

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events.schema import Decision, Event, Loss, Outcome
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


def _halve(store: EventStore) -> bool:
    """Make one pass over the rows of the lowest level; return whether there were any.

    A pass that removes nothing does not mean that the next will not.
    """
    loss = store.loss("full", {})
    counts: Counter[str] = Counter()
    last_seq = store.header.sent_seq
    types, lowest = _next_level(store)
    condition = f"seq > ? AND type IN {types} AND level = ? ORDER BY seq LIMIT ?"
    while rows := list(store.rows(condition, (last_seq, lowest, ROWS_PER_TRANSACTION))):
        last_seq = rows[-1].seq
        removed: Counter[str] = Counter()
        shed: list[str] = []
        with store.transaction(durable=False) as header:
            for row in rows:
                removed += _pass(store, header, row, shed)
            if removed:
                loss = _declare(store, header, loss, counts + removed)
        counts += removed
        store.remember_shed(shed)

    store.losses.count("full", counts.total())
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


def _pass(store: EventStore, header: OutboxHeader, row: EventRow, shed: list[str]) -> Counter[str]:
    """Let a row survive or remove it; `shed` receives the id of a decision that is removed.

    Return what was removed, by type.
    """
    stored = row.intact()
    event = _decode(row)
    if stored is None or event is None:
        # A row that is damaged, or cannot be decoded, is of no use to training.
        store.mark_gap_of(header, row)
        store.remove(header, row.seq)
        return Counter({row.type: 1})

    level = row.level + 1
    if survives(stored.id, level):
        line = stored.line
        if isinstance(event, Decision):
            line = codec.encode(msgspec.structs.replace(event, pass_probability=0.5**level))
        store.rewrite(stored, line, "level = level + 1")
        return Counter()

    if isinstance(event, Decision):
        shed.append(stored.id)
    store.mark_gap_of(header, row)
    store.remove(header, row.seq)
    outcomes = list(store.rows("decision = ? AND seq > ?", (stored.id, header.sent_seq)))
    n_removed = sum(_drop_outcome(store, header, outcome) for outcome in outcomes)
    return Counter({row.type: 1, "outcome": n_removed})


def _drop_outcome(store: EventStore, header: OutboxHeader, row: EventRow) -> bool:
    """Remove an outcome of a shed decision; return False for one that stays as an observation."""
    stored = row.intact()
    event = _decode(row)
    if stored is not None and isinstance(event, Outcome) and event.updates_state:
        line = codec.encode(as_observation(event))
        store.rewrite(stored, line, "type = 'observation', decision = NULL")
        return False
    store.mark_gap_of(header, row)
    store.remove(header, row.seq)
    return True


def _decode(row: EventRow) -> Event | None:
    stored = row.intact()
    try:
        return codec.decode(stored.line) if stored is not None else None
    except EventError:
        return None


def _declare(store: EventStore, header: OutboxHeader, loss: Loss, counts: Counter[str]) -> Loss:
    """Replace the one declaration of this pass by one with the counts so far."""
    loss = msgspec.structs.replace(store.loss(loss.reason, counts), id=loss.id)
    for row in list(store.rows("id = ?", (loss.id,))):
        store.remove(header, row.seq)
        header.seq = min(header.seq, row.seq - 1)
    store.insert(header, loss)
    return loss
