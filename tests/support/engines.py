"""What an engine has recorded, read from its outbox."""

from __future__ import annotations

from sanderling import Engine
from sanderling.events import codec
from sanderling.events.schema import Event


def stored(engine: Engine) -> list[Event]:
    """Return the events that the engine's outbox holds; a durable write first, so that all earlier ones are in."""
    engine._outbox.put_durable([])
    return [codec.decode(stored.line) for stored in engine._outbox.oldest(10_000, 1 << 30)]
