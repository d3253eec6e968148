"""Opening outboxes of a temporary folder, and reading what is stored there."""

from __future__ import annotations

from pathlib import Path

import apsw

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Loss
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.outbox import Outbox
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy


def open_outbox(folder: Path, **options) -> tuple[Outbox, EventFactory]:
    """Return an outbox, and a factory of events of its install."""
    outbox = Outbox(folder, clock=FakeClock(), **options)
    return outbox, EventFactory(outbox.install)


def open_store(folder: Path, limit_bytes: int = 2**20) -> EventStore:
    """Return the store of a folder whose outbox is closed."""
    return EventStore(folder, limit_bytes, FakeClock(), FakeEntropy())


def sync(outbox: Outbox) -> None:
    """Return when all that was put is on disk."""
    outbox.put_durable([])


def waiting(outbox: Outbox) -> list[wire.Event]:
    """Return the stored events, oldest first."""
    return [codec.decode(stored.line) for stored in outbox.oldest(10**6, 2**40)]


def n_undeclared(events: list[wire.Event]) -> int:
    """Return how many numbers are missing and not declared by any of these events."""
    losses = [event for event in events if isinstance(event, Loss)]
    n_declared = sum(loss.decisions + loss.outcomes + loss.observations for loss in losses)
    return max(event.seq for event in events) - len(events) - n_declared


def database(folder: Path) -> apsw.Connection:
    """Return a second connection to the file of an outbox."""
    return apsw.Connection(str(folder / "outbox.db"))
