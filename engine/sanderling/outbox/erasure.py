"""Deleting to the last byte: one user's rows, or all of them under a new name.

SQLite leaves deleted bytes in free pages and in gaps of others, so the file is written anew. Where that cannot be done
at once, for want of space or because the process ends, a mark in the file says that it is still to be done. Refuses to
know why somebody is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress

import apsw

from sanderling.events.boot_clock import BootClock
from sanderling.events.schema import MAX_LOST_SEQS
from sanderling.outbox.database import OutboxHeader
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.identity import Identity

UNSCRUBBED = "unscrubbed"


def forget(store: EventStore, names: Collection[str], keys: Collection[str]) -> None:
    """Delete the events and quarantined rows of these pseudonyms and the states under these keys, to the last byte.

    All is declared as lost, by its number what the lab may have already. On an error the rows may be gone already;
    `scrub_left` sees to their bytes.
    """
    store.with_ballast(lambda _: delete(store, names, keys))
    _scrub(store)


def reset_identity(store: EventStore) -> None:
    """Delete everything, and become another install; what cannot be overwritten now is left to `scrub_left`."""
    store.with_ballast(lambda _: _delete_all(store))
    scrub_left(store)


def scrub_left(store: EventStore) -> None:
    """Overwrite what was deleted and could not be overwritten then; on trouble, some other time."""
    with suppress(apsw.Error, OSError):
        if store.database.writer.execute("SELECT 1 FROM state WHERE user = ?", (UNSCRUBBED,)).get:
            _scrub(store)


def delete(store: EventStore, names: Collection[str], keys: Collection[str]) -> None:
    """Delete as `forget` does, but for the bytes: a mark says that they are still there."""
    writer = store.database.writer
    with store.database.transaction(durable=True) as meta:
        found = sorted(row for name in names for row in _rows_of(store, name))
        for seq, _ in found:
            store.remove(meta, seq)
        writer.executemany(
            "DELETE FROM quarantine WHERE instr(CAST(line AS BLOB), ?)",
            [(_told_of(name),) for name in names],
        )
        writer.executemany("DELETE FROM state WHERE user = ?", [(key,) for key in keys])
        for start in range(0, len(found), MAX_LOST_SEQS):
            part = found[start : start + MAX_LOST_SEQS]
            lost = Counter(kind.decode(errors="replace") for _, kind in part)
            store.insert(
                meta,
                store.loss("forgotten", lost, [seq for seq, _ in part if seq <= meta.sent_seq]),
            )
        _mark(store, meta)
    store.lost["forgotten"] += len(found)


def _delete_all(store: EventStore) -> None:
    store.boot = BootClock(store.clock, store.entropy)  # before anybody can see the new name
    with store.database.transaction(durable=True) as meta:
        for table in ("event", "quarantine", "state"):
            store.database.writer.execute(f"DELETE FROM {table}")
        meta.install, meta.secret = Identity.fresh(store.entropy)
        meta.seq = meta.sent_seq = meta.events = meta.bytes = 0
        _mark(store, meta)
    store.sent_seq.clear()
    store.gaps.clear()


def _mark(store: EventStore, meta: OutboxHeader) -> None:
    store.database.writer.execute(
        "INSERT OR REPLACE INTO state VALUES (?, x'', 0, ?)", (UNSCRUBBED, meta.seq)
    )


def _scrub(store: EventStore) -> None:
    store.database.delete_aside()
    store.with_ballast(lambda _: _write_anew(store))


def _write_anew(store: EventStore) -> None:
    store.database.writer.execute("VACUUM")
    store.database.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    store.database.writer.execute("DELETE FROM state WHERE user = ?", (UNSCRUBBED,))


def _rows_of(store: EventStore, name: str) -> list[tuple[int, bytes]]:
    query = (
        "SELECT seq, ifnull(CAST(kind AS BLOB), x'') FROM event WHERE instr(CAST(line AS BLOB), ?)"
    )
    return list(store.database.writer.execute(query, (_told_of(name),)))


def _told_of(name: str) -> bytes:
    """Return what stands in the lines of a pseudonym's events."""
    return f'"user":"{name}"'.encode()
