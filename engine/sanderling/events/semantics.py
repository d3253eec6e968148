"""What an event means beyond the types of its fields: faults, the states it updates, the kind of a
reward."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable

from sanderling.bundle.manifest import MAX_POOL
from sanderling.events.schema import Decision, Event, Observation, Outcome, StateReset


def semantic_fault(event: Event) -> str | None:
    """Return what is wrong with a well-typed event, or None."""
    if not isinstance(event, Decision):
        return None

    items = [slot.item for slot in event.slate]
    if len(set(items)) != len(items):
        return "slate: expected distinct items"
    if event.pool > min(event.eligible, MAX_POOL):
        return (
            f"pool: expected at most eligible ({event.eligible}) and {MAX_POOL}, found {event.pool}"
        )
    if len(items) > event.pool:
        return f"slate: expected at most pool ({event.pool}) slots, found {len(items)}"
    return None if event.context is None else _context_fault(event.context)


def _context_fault(code: str) -> str | None:
    try:
        numbers = memoryview(base64.b64decode(code, validate=True)).cast("f")
    except (ValueError, TypeError) as error:  # not ASCII, not base64, or not whole numbers
        return f"context: expected the base64 of float32 numbers, found something else: {error}"

    # float64 cannot overflow in a sum of float32, so one check covers all numbers.
    if not math.isfinite(sum(numbers)):
        return "context: expected finite numbers, found NaN or an infinity"
    return None


def moved_by(events: Iterable[Event]) -> set[str]:
    """Return the pseudonyms whose states these events update."""
    return {
        event.user
        for event in events
        if isinstance(event, Observation | StateReset)
        or (isinstance(event, Outcome) and event.updates_state)
    }


def as_observation(event: Outcome) -> Observation:
    """Return what remains of an outcome that updated a state when its decision is shed.

    It keeps its id and number: training needs it to rebuild the state, though not to learn from the
    reward.
    """
    return Observation(
        event.id, event.install, event.seq, event.user, event.clock, event.item, event.kind
    )


def type_of(event: Event) -> str:
    """Return the wire's `type`: decision, outcome, observation, state_reset or loss."""
    return str(type(event).__struct_config__.tag)


def kind_of_reward(value: float) -> str:
    """Return the kind of behaviour that a reward stands for unless the app names one."""
    return "click" if value > 0 else "skip"
