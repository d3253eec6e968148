"""Erasing to the last byte: one user's rows, or everything together with the identity.

SQLite leaves deleted bytes in unused pages and in gaps of others, so the file is rewritten. Where
that fails, for want of space or because the process ends, a mark in the file says that it is still
to be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress

import apsw

from sanderling.events.schema import MAX_LOST_SEQS
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.state_table import UNSCRUBBED


def forget(store: EventStore, pseudonyms: Collection[str], keys: Collection[str]) -> None:
    """Erase the events of these pseudonyms and the states under these keys.

    On an error the rows may be gone already; `scrub_pending` then overwrites their bytes.
    """
    store.ballast.run(lambda: delete(store, pseudonyms, keys))
    _scrub(store)


def reset_identity(store: EventStore) -> None:
    """Erase everything and take a new identity; what cannot be overwritten now is left marked."""
    store.ballast.run(store.delete_all)
    scrub_pending(store)


def scrub_pending(store: EventStore) -> None:
    """Overwrite deleted bytes that could not be overwritten before.

    Storage errors are ignored: the mark stays, and the next call tries again.
    """
    with suppress(apsw.Error, OSError):
        if store.states.get(UNSCRUBBED) is not None:
            _scrub(store)


def delete(store: EventStore, pseudonyms: Collection[str], keys: Collection[str]) -> None:
    """Delete rows and states, but not yet their bytes: a mark says that they are still there.

    The events are declared lost; those that the collector may have are named by their numbers.
    """
    # Quotes inside JSON strings are escaped, so no text can contain this.
    needles = [f'"user":"{pseudonym}"'.encode() for pseudonym in pseudonyms]
    contains = "instr(CAST(line AS BLOB), ?)"
    with store.transaction(durable=True) as header:
        rows = [
            (row.seq, row.type) for needle in needles for row in store.rows(contains, (needle,))
        ]
        rows.sort()
        for seq, _ in rows:
            store.remove(header, seq)
        store.states.delete(keys)

        for start in range(0, len(rows), MAX_LOST_SEQS):
            part = rows[start : start + MAX_LOST_SEQS]
            counts = Counter(type for _, type in part)
            sent = [seq for seq, _ in part if seq <= header.sent_seq]
            store.insert(header, store.loss("forgotten", counts, sent))
        store.states.put(header, UNSCRUBBED, b"")
    store.losses.count("forgotten", len(rows))


def _scrub(store: EventStore) -> None:
    def rewrite() -> None:
        store.vacuum()
        store.states.delete([UNSCRUBBED])

    store.delete_damaged()
    store.ballast.run(rewrite)
