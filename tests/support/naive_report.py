"""The report's figures once more, slowly, from a list of events: loops and dictionaries alone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome

DAY_MS = 86_400_000


def naive_figures(events: list[Event]) -> defaultdict[Any, Any]:
    """Return clicks and seen slots by release, by kind of slot and for new items, and counts of
    items and losses. Events arrive in order, and their clocks are right."""
    outcome_of = {
        (event.decision, event.slot): event for event in events if isinstance(event, Outcome)
    }
    first: dict[str, int] = {}
    for event in events:
        for item in _mentioned(event):
            first[item] = min(first.get(item, 10**9), event.clock.wall // DAY_MS)
    start = min(event.clock.wall for event in events if isinstance(event, Decision)) // DAY_MS
    found: defaultdict[Any, Any] = defaultdict(float)
    shown: dict[int, set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Loss):
            found["declared"] += event.decisions + event.outcomes + event.observations
        if not isinstance(event, Decision) or event.arm:
            continue
        found[event.release, "slates"] += 1
        day = event.clock.wall // DAY_MS
        for slot, item in enumerate(event.slate):
            shown[event.release].add(item.item)
            is_new = first[item.item] > start and day - first[item.item] < 7
            found[event.release, "slots"] += 1
            found[event.release, "new slots"] += is_new
            outcome = outcome_of.get((event.id, slot))
            if outcome is None or outcome.item != item.item:
                continue
            kind = "greedy"
            if item.newcomer:
                kind = "quota"
            elif item.explored:
                kind = "explored"
            elif event.epsilon == 0.0 or slot < (event.guarded or 0) or item.pinned:
                kind = "fixed"
            for name in (event.release, kind, ("new", event.release) if is_new else "old"):
                found[name, "seen"] += 1
                found[name, "clicks"] += outcome.value > 0.0
            place = (event.release, slot)
            group = "greedy" if kind == "greedy" else "exploring"
            if kind != "fixed":
                found[group, place, "seen"] += 1
                found[group, place, "clicks"] += outcome.value > 0.0
    found["items"] = {release: len(items) for release, items in shown.items()}
    return found


def _mentioned(event: Event) -> list[str]:
    if isinstance(event, Decision):
        return [*(slot.item for slot in event.slate), *(event.pool_items or ())]
    return [event.item] if isinstance(event, Observation | Outcome) else []
