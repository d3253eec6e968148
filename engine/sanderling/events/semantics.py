"""What an event means beyond the types of its fields: faults, the states it updates, the kind of a
reward."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable

from msgspec import UNSET

from sanderling.bundle.manifest import MAX_POOL
from sanderling.events.pending_decision import PendingDecision
from sanderling.events.schema import Decision, Event, Observation, Outcome, StateReset

ROUNDING = 1e-9  # of logged probabilities, relative


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
    drawn = sum(not slot.pinned for slot in event.slate)
    if drawn > event.pool:
        return f"slate: expected at most pool ({event.pool}) slots, found {drawn}"
    fault = _newcomer_fault(event) or _pin_fault(event) or _pool_fault(event) or _texts_fault(event)
    if fault is not None or event.context is None:
        return fault
    return _context_fault(event.context)


def _newcomer_fault(event: Decision) -> str | None:
    """Return what of a decision the quota for newcomers cannot have made."""
    count = event.newcomers or 0
    rate = event.newcomer_rate or 0.0
    if (count > 0) != (rate > 0.0):
        return f"newcomers: expected both or none of newcomers ({count}) and rate ({rate})"
    if event.pool + count > event.eligible:
        return (
            f"newcomers: expected at most eligible ({event.eligible}) less pool ({event.pool}), "
            f"found {count}"
        )
    left = count
    for slot, shown in enumerate(event.slate):
        if not shown.newcomer:
            continue
        if slot < (event.guarded or 0) or not shown.explored or left == 0:
            return f"newcomer: slot {slot}: expected a slot that explores, and one of {count} left"
        if not event.pool <= shown.rank < event.pool + count:
            return (
                f"newcomer: slot {slot}: expected a rank from {event.pool} to less than "
                f"{event.pool + count}, found {shown.rank}"
            )
        if not math.isclose(shown.conditional, rate / left, rel_tol=ROUNDING):
            return (
                f"newcomer: slot {slot}: expected the conditional {rate / left}, "
                f"found {shown.conditional}"
            )
        left -= 1
    return None


def _pin_fault(event: Decision) -> str | None:
    """Return what of the pinned slots no engine can have made."""
    expected = event.pool + (event.newcomers or 0)
    for slot, shown in enumerate(event.slate):
        if not shown.pinned:
            continue
        if shown.newcomer or shown.explored or (shown.conditional, shown.marginal) != (1.0, 1.0):
            return f"pinned: slot {slot}: expected a slot that shows its item with certainty"
        if shown.rank != expected:
            return f"pinned: slot {slot}: expected the rank {expected}, found {shown.rank}"
        expected += 1
    return None


def _pool_fault(event: Decision) -> str | None:
    """Return where the slate differs from the ids of the pool, if they are known."""
    pool = event.pool_items or []
    if event.boosts is not UNSET and len(event.boosts) != len(pool):
        return f"boosts: expected one for each of {len(pool)} pool_items, found {len(event.boosts)}"
    if not pool:
        return None
    if len(pool) != event.pool or len(set(pool)) != len(pool):
        return f"pool_items: expected pool ({event.pool}) distinct ids, found {len(set(pool))}"
    for slot, shown in enumerate(event.slate):
        of_rank = pool[shown.rank] if shown.rank < len(pool) else None
        is_outside = bool(shown.newcomer or shown.pinned)
        expected = None if is_outside else shown.item
        if of_rank != expected or (is_outside and shown.item in pool):
            return (
                f"pool_items: slot {slot}: expected {shown.item!r} at its rank {shown.rank}, and "
                f"newcomers and pinned items nowhere, found {of_rank!r}"
            )
    return None


def _texts_fault(event: Decision) -> str | None:
    """Return whether more texts were out of the domain than there were."""
    counts = event.texts
    if counts is UNSET:
        return None
    if counts.items_outside > counts.items or counts.queries_outside > counts.queries:
        return f"texts: expected at most as many outside as there are, found {counts}"
    return None


def _context_fault(code: str) -> str | None:
    try:
        numbers = memoryview(base64.b64decode(code, validate=True)).cast("f")
    except (ValueError, TypeError) as error:  # not ASCII, not base64, or not whole numbers
        return f"context: expected the base64 of float32 numbers, found something else: {error}"

    # float64 cannot overflow in a sum of float32, so one check covers all numbers.
    if not math.isfinite(sum(numbers)):
        return "context: expected finite numbers, found NaN or an infinity"
    return None


def moved_by(events: Iterable[Event | PendingDecision]) -> set[str]:
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


def type_of(event: Event | PendingDecision) -> str:
    """Return the wire's `type`: decision, outcome, observation, state_reset or loss."""
    kind = Decision if isinstance(event, PendingDecision) else type(event)
    return str(kind.__struct_config__.tag)


def kind_of_reward(value: float) -> str:
    """Return the kind of behaviour that a reward stands for unless the app names one."""
    return "click" if value > 0 else "skip"
