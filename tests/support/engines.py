"""What an engine has recorded, and its parts that no public name shows."""

from __future__ import annotations

from sanderling import Engine
from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.outbox import Outbox


def outbox_of(engine: Engine) -> Outbox:
    """Return the engine's outbox; it has one."""
    assert engine._outbox is not None
    return engine._outbox


def stored(engine: Engine) -> list[Event]:
    """Return the stored events; a durable write comes first, so that all earlier ones are in."""
    outbox = outbox_of(engine)
    outbox.put_durable([])
    return [codec.decode(stored.line) for stored in outbox.oldest(10_000, 1 << 30)]
