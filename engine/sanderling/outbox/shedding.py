"""Making room in a full outbox: whole decisions go, chosen by a hash of their id; what stays says how likely it was.

A row of level n has survived n passes, each with probability 1/2, all decided by the same 64 bits of its id. A pass
halves the rows of the lowest level, so that all come to weigh nearly the same: were the old halved again and again, the
few that stay would weigh thousands, and no sum over them would mean anything. A decision takes its outcomes along; one
that moved its user's state stays, as an observation, for without it no later decision of the user could be learned
from. Observations go only where they take more room than decisions do, and leave a gap that is marked. Rows that were
handed out are never touched: the lab may have them. Refuses to know why the outbox is full.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import suppress

import msgspec

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import as_observation
from sanderling.outbox.database import OutboxHeader
from sanderling.outbox.erasure import UNSCRUBBED
from sanderling.outbox.event_store import BORN, GAP, MOST_GAPS, EventStore, checksum, sound

CHUNK = 500
TARGET = 0.75
STATES = 0.25
QUARANTINE = 0.125
DEEPEST = 64
MARK_SHARE = 2048
MARKS = f"user >= '{GAP}' AND user < '{GAP[:-1]};'"
DECISIONS, BEHAVIOUR = "('decision')", "('observation', 'state_reset')"


def survives(id: str, level: int) -> bool:
    """Return whether an id survives `level` passes (0 to 64): its 64-bit hash begins with `level` zero bits."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - level) == 0


def make_room(store: EventStore) -> bool:
    """Halve until at most three quarters of the limit are used; return whether there is room for new events."""
    with suppress(OSError):
        store.database.delete_aside()
    _forget_states(store)
    _forget_quarantined(store, int(QUARANTINE * store.limit))
    while store.database.used() > TARGET * store.limit and _halve(store):
        pass
    if store.database.used() > store.limit:
        _forget_quarantined(store, 0)
    return store.database.used() <= store.limit


def _halve(store: EventStore) -> bool:
    """Make one pass over the rows of the lowest level, in transactions of `CHUNK` rows; return whether there are any:
    that none of them went says nothing of the next level."""
    loss = store.loss("full", {})
    counts: Counter[str] = Counter()
    last = store.meta.sent_seq
    kind, lowest = _next_level(store, last)
    may_go = f"FROM event WHERE seq > ? AND kind IN {kind}"
    columns = "seq, CAST(id AS BLOB), kind, level, CAST(line AS BLOB), crc"
    query = f"SELECT {columns} {may_go} AND level = ? ORDER BY seq LIMIT ?"
    while rows := list(store.database.writer.execute(query, (last, lowest, CHUNK))):
        last = rows[-1][0]
        gone: Counter[str] = Counter()
        shed: list[str] = []
        with store.database.transaction(durable=False) as meta:
            for row in rows:
                gone += _pass(store, meta, shed, *row)
            if gone:
                loss = _declare(store, meta, loss, counts + gone)
        counts += gone
        store.note_shed(shed)
    store.lost["full"] += counts.total()
    return lowest is not None


def _next_level(store: EventStore, sent_seq: int) -> tuple[str, int | None]:
    """Return the kinds of rows that may go and take most of the room, behaviour, or decisions with their outcomes, and
    their lowest level; None where nothing may go."""
    may_go = f"FROM event WHERE seq > {sent_seq} AND level < {DEEPEST} AND kind IN "
    of_decisions = f"kind IN {DECISIONS} OR decision IN (SELECT id {may_go}{DECISIONS})"
    size = f"ifnull(sum(length(line)) FILTER (WHERE level < {DEEPEST} AND ({{}})), 0)"
    behaviour = f"{size.format('kind IN ' + BEHAVIOUR)} > {size.format(of_decisions)}"
    heavier = store.database.writer.execute(
        f"SELECT {behaviour} FROM event WHERE seq > {sent_seq}"
    ).get
    kind = BEHAVIOUR if heavier else DECISIONS
    return kind, store.database.writer.execute(f"SELECT min(level) {may_go}{kind}").get


def _pass(
    store: EventStore,
    meta: OutboxHeader,
    shed: list[str],
    seq: int,
    id: bytes,
    kind: str,
    level: int,
    line: bytes,
    crc: int,
) -> Counter[str]:
    """Let a row survive, or remove it; `shed` gets the id of a decision that goes. Return what went, by kind."""
    event = _read(line) if sound(id, line, crc) else None
    if event is None:  # a row that is rotten, or that the lab could not read, is no use to anybody
        store.mark_gap_of(meta, seq)
        store.remove(meta, seq)
        return Counter({kind: 1})
    name = id.decode()
    if survives(name, level + 1):
        kept = _with_probability(event, line, 0.5 ** (level + 1))
        change = "UPDATE event SET level = level + 1, line = ?, crc = ? WHERE seq = ?"
        store.database.writer.execute(change, (kept, checksum(name, kept), seq))
        meta.bytes += len(kept) - len(line)
        return Counter()
    if isinstance(event, Decision):
        shed.append(name)
    store.mark_gap_of(meta, seq)
    store.remove(meta, seq)
    query = "SELECT seq, CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event WHERE decision = ? AND seq > ?"
    outcomes = list(store.database.writer.execute(query, (name, meta.sent_seq)))
    return Counter({kind: 1, "outcome": sum(_drop_outcome(store, meta, *row) for row in outcomes)})


def _drop_outcome(
    store: EventStore, meta: OutboxHeader, seq: int, id: bytes, line: bytes, crc: int
) -> bool:
    """Remove an outcome whose decision goes, and return True; but make an observation of one that moved a state."""
    event = _read(line) if sound(id, line, crc) else None
    if not isinstance(event, Outcome):
        store.mark_gap_of(meta, seq)
    if not isinstance(event, Outcome) or not event.updates_state:
        store.remove(meta, seq)
        return True
    kept = codec.encode(as_observation(event))
    change = (
        "UPDATE event SET kind = 'observation', decision = NULL, line = ?, crc = ? WHERE seq = ?"
    )
    store.database.writer.execute(change, (kept, checksum(event.id, kept), seq))
    meta.bytes += len(kept) - len(line)
    return False


def _read(line: bytes) -> Event | None:
    try:
        return codec.decode(line)
    except EventError:
        return None


def _with_probability(event: Event, line: bytes, probability: float) -> bytes:
    if not isinstance(event, Decision):
        return line
    return codec.encode(msgspec.structs.replace(event, pass_probability=probability))


def _declare(
    store: EventStore, meta: OutboxHeader, loss: wire.Loss, counts: Counter[str]
) -> wire.Loss:
    """Write this pass's one Loss event anew, with the counts so far."""
    loss = msgspec.structs.replace(store.loss(loss.reason, counts), id=loss.id)
    for (seq,) in list(
        store.database.writer.execute("SELECT seq FROM event WHERE id = ?", (loss.id,))
    ):
        store.remove(meta, seq)
        meta.seq = min(meta.seq, seq - 1)
    store.insert(meta, loss)
    return loss


def _forget_states(store: EventStore) -> None:
    """Keep the states within a quarter of the limit, and marks of gaps within a sixteenth: those written longest ago go
    first."""
    with store.database.transaction(durable=False):
        store.database.writer.execute(
            f"DELETE FROM state WHERE user NOT IN (?, ?) AND NOT ({MARKS}) AND seq <= (SELECT max(seq) FROM"
            f" (SELECT seq, sum(length(value) + 64) OVER (ORDER BY seq DESC) AS size FROM state WHERE NOT ({MARKS}))"
            " WHERE size > ?)",
            (BORN, UNSCRUBBED, int(STATES * store.limit)),
        )
        store.database.writer.execute(
            f"DELETE FROM state WHERE user IN"
            f" (SELECT user FROM state WHERE {MARKS} ORDER BY seq DESC LIMIT -1 OFFSET ?)",
            (min(MOST_GAPS, store.limit // MARK_SHARE),),
        )


def _forget_quarantined(store: EventStore, most: int) -> None:
    """Keep so many bytes of what was set aside: the oldest goes first."""
    with store.database.transaction(durable=False):
        store.database.writer.execute(
            "DELETE FROM quarantine WHERE seq <= (SELECT max(seq) FROM (SELECT seq,"
            " sum(ifnull(length(line), 0) + length(reason) + 64) OVER (ORDER BY seq DESC) AS size FROM quarantine)"
            " WHERE size > ?)",
            (most,),
        )
