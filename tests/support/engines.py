"""What tests look at inside an engine: the only module of tests that reaches into `Engine`.

An app has no use for these parts, so that nothing public shows them; tests break them on purpose
or compare them with a reference.
"""

from __future__ import annotations

import threading
from typing import Any

from sanderling import Engine
from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.outbox import Outbox
from sanderling.ranking.scorer import Scorer
from sanderling.releases.active_bundle import ActiveBundle
from sanderling.users.event_factory import EventFactory
from sanderling.users.profiles import UserProfiles
from sanderling.users.reward_receipts import RewardReceipts
from sanderling.users.user_states import UserStates


def outbox_of(engine: Engine) -> Outbox | None:
    """Return the outbox of an engine, None where nothing can be stored."""
    return engine._state.outbox


def profiles_of(engine: Engine) -> UserProfiles:
    """Return the users' profiles of an engine under its current identity."""
    return engine._profiles


def event_factory_of(engine: Engine) -> EventFactory:
    """Return what makes an engine's events under its current identity."""
    return profiles_of(engine)._event_factory


def user_states_of(engine: Engine) -> UserStates:
    """Return the states of an engine's users under its current identity."""
    return profiles_of(engine)._states


def event_store_of(engine: Engine) -> EventStore | None:
    """Return the file of an engine's outbox, None where nothing can be stored."""
    outbox = outbox_of(engine)
    return outbox._store if outbox else None


def receipts_of(engine: Engine) -> RewardReceipts:
    """Return what waits for an engine's rewards."""
    return engine._receipts


def active_bundle_of(engine: Engine) -> ActiveBundle:
    """Return the holder of the active bundle."""
    return engine._active_bundle


def scorer_of(engine: Engine) -> Scorer:
    """Return the scorer of the active bundle."""
    return active_bundle_of(engine).scorer


def run_on_empty(engine: Engine) -> None:
    """Do what the uploader does when everything is uploaded: scrub, rotate if that is due."""
    engine._on_empty()


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


def wait_for_confirmation() -> None:
    """Wait for the background thread that confirms a release after its first decision."""
    for thread in threading.enumerate():
        if thread.name == "sanderling-confirm":
            thread.join()


def stored(engine: Engine) -> list[Event]:
    """Return the events in an engine's outbox, written or queued before this call."""
    outbox = outbox_of(engine)
    assert outbox is not None, engine.storage_fault
    outbox.put_durable([])
    return [codec.decode(event.line) for event in outbox.oldest(10_000, 1 << 30)]
