"""What an engine has recorded, and its parts that no public name shows."""

from __future__ import annotations

import threading
from typing import Any

from sanderling import Engine
from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.outbox import Outbox
from sanderling.ranking.scorer import Scorer
from sanderling.users.profiles import UserProfiles


def outbox_of(engine: Engine) -> Outbox:
    """Return the engine's outbox; it has one."""
    assert engine._outbox is not None
    return engine._outbox


def profiles_of(engine: Engine) -> UserProfiles:
    """Return the profiles of the engine's users under the present identity."""
    return engine._people


def scorer_of(engine: Engine) -> Scorer:
    """Return the scorer of the active bundle."""
    return engine._serving.scorer


def locks_of(engine: Engine) -> list[Any]:
    """Return every lock that an object of the engine holds."""
    kinds = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
    locks: list[Any] = []
    visited: set[int] = set()
    remaining: list[Any] = [engine]
    while remaining:
        value = remaining.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, kinds):
            locks.append(value)
        elif type(value).__module__.startswith("sanderling"):
            remaining += getattr(value, "__dict__", {}).values()
    return locks


def stored(engine: Engine) -> list[Event]:
    """Return the stored events; a durable write comes first, so that all earlier ones are in."""
    outbox = outbox_of(engine)
    outbox.put_durable([])
    return [codec.decode(stored.line) for stored in outbox.oldest(10_000, 1 << 30)]
