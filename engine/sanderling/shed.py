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

import msgspec

from sanderling.contract import events as wire
from sanderling.contract.events import Decision, Event, Outcome
from sanderling.database import Meta
from sanderling.errors import EventError
from sanderling.forgetting import UNSCRUBBED
from sanderling.store import BORN, Store, as_observation, checksum, sound

CHUNK = 500
TARGET = 0.75
STATES = 0.25
QUARANTINE = 0.125
DEEPEST = 64
DECISIONS, BEHAVIOUR = "('decision')", "('observation', 'restart')"


def survives(id: str, level: int) -> bool:
    """Return whether an id survives `level` passes (0 to 64): its 64-bit hash begins with `level` zero bits."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - level) == 0


def make_room(store: Store) -> bool:
    """Halve until at most three quarters of the limit are used; return whether there is room for new events."""
    store.database.delete_aside()
    _forget_states(store)
    _forget_quarantined(store, int(QUARANTINE * store.limit))
    while store.database.used() > TARGET * store.limit and _halve(store):
        pass
    if store.database.used() > store.limit:
        _forget_quarantined(store, 0)
    return store.database.used() <= store.limit


def _halve(store: Store) -> bool:
    """Make one pass over the rows of the lowest level, in transactions of `CHUNK` rows; return whether there are any:
    that none of them went says nothing of the next level."""
    loss = store.loss("full", {})
    counts: Counter[str] = Counter()
    last = store.meta.handed
    may_go = f"FROM event WHERE seq > ? AND kind IN {_heavier(store, last)}"
    lowest = store.database.writer.execute(f"SELECT min(level) {may_go} AND level < {DEEPEST}", (last,)).get
    columns = "seq, CAST(id AS BLOB), kind, level, CAST(line AS BLOB), crc"
    query = f"SELECT {columns} {may_go} AND level = ? ORDER BY seq LIMIT ?"
    while rows := list(store.database.writer.execute(query, (last, lowest, CHUNK))):
        last = rows[-1][0]
        gone: Counter[str] = Counter()
        with store.database.transaction(durable=False) as meta:
            for row in rows:
                gone += _pass(store, meta, *row)
            if gone:
                loss = _declare(store, meta, loss, counts + gone)
        counts += gone
    store.lost["full"] += counts.total()
    return lowest is not None


def _heavier(store: Store, handed: int) -> str:
    """Return the kinds of rows that may go and take most of the room: behaviour, or decisions with their outcomes."""
    size = "ifnull(sum(length(line)) FILTER (WHERE kind {} IN " + BEHAVIOUR + f" AND level < {DEEPEST}), 0)"
    query = f"SELECT {size.format('')} > {size.format('NOT')} FROM event WHERE seq > ?"
    return BEHAVIOUR if store.database.writer.execute(query, (handed,)).get else DECISIONS


def _pass(store: Store, meta: Meta, seq: int, id: bytes, kind: str, level: int, line: bytes, crc: int) -> Counter[str]:
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
    store.note_shed(name)
    store.mark_gap_of(meta, seq)
    store.remove(meta, seq)
    query = "SELECT seq, CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event WHERE decision = ?"
    outcomes = list(store.database.writer.execute(query, (name,)))
    return Counter({kind: 1, "outcome": sum(_drop_outcome(store, meta, *row) for row in outcomes)})


def _drop_outcome(store: Store, meta: Meta, seq: int, id: bytes, line: bytes, crc: int) -> bool:
    """Remove an outcome whose decision goes, and return True; but make an observation of one that moved a state."""
    event = _read(line) if sound(id, line, crc) else None
    if not isinstance(event, Outcome):
        store.mark_gap_of(meta, seq)
    if not isinstance(event, Outcome) or not event.observed:
        store.remove(meta, seq)
        return True
    kept = wire.encode(as_observation(event))
    change = "UPDATE event SET kind = 'observation', decision = NULL, line = ?, crc = ? WHERE seq = ?"
    store.database.writer.execute(change, (kept, checksum(event.id, kept), seq))
    meta.bytes += len(kept) - len(line)
    return False


def _read(line: bytes) -> Event | None:
    try:
        return wire.decode(line)
    except EventError:
        return None


def _with_probability(event: Event, line: bytes, probability: float) -> bytes:
    if not isinstance(event, Decision):
        return line
    return wire.encode(msgspec.structs.replace(event, pass_probability=probability))


def _declare(store: Store, meta: Meta, loss: wire.Loss, counts: Counter[str]) -> wire.Loss:
    """Write this pass's one Loss event anew, with the counts so far."""
    loss = msgspec.structs.replace(
        loss, decisions=counts["decision"], outcomes=counts["outcome"], observations=counts["observation"]
    )
    for (seq,) in list(store.database.writer.execute("SELECT seq FROM event WHERE id = ?", (loss.id,))):
        store.remove(meta, seq)
        meta.seq = min(meta.seq, seq - 1)
    store.insert(meta, loss)
    return loss


def _forget_states(store: Store) -> None:
    """Keep the states within a quarter of the limit: those written longest ago go first."""
    with store.database.transaction(durable=False):
        store.database.writer.execute(
            "DELETE FROM state WHERE user NOT IN (?, ?) AND seq <= (SELECT max(seq) FROM"
            " (SELECT seq, sum(length(value) + 64) OVER (ORDER BY seq DESC) AS size FROM state) WHERE size > ?)",
            (BORN, UNSCRUBBED, int(STATES * store.limit)),
        )


def _forget_quarantined(store: Store, most: int) -> None:
    """Keep so many bytes of what was set aside: the oldest goes first."""
    with store.database.transaction(durable=False):
        store.database.writer.execute(
            "DELETE FROM quarantine WHERE seq <= (SELECT max(seq) FROM (SELECT seq,"
            " sum(ifnull(length(line), 0) + length(reason) + 64) OVER (ORDER BY seq DESC) AS size FROM quarantine)"
            " WHERE size > ?)",
            (most,),
        )
