"""Compares slates and logged decisions with the items that were eligible, and their contexts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from sanderling import Slate
from sanderling.events.schema import Decision, Event
from tests.support.fleet.catalog_model import EligibleItems


def eligibility_faults(
    slates: Mapping[str, Slate], eligible: Mapping[str, EligibleItems], events: Iterable[Event]
) -> Iterator[str]:
    """Yield slates with ineligible items, and events with a wrong release or number of items."""
    for id, slate in slates.items():
        items = eligible[id]
        if slate.release != items.release:
            yield f"slate {id}: expected release {items.release}, found {slate.release}"
        for item in slate:
            title = items.titles.get(item.id)
            if title != item.title:
                yield f"slate {id}: item {item.id}: expected title {title}, found {item.title}"

    for event in events:
        if isinstance(event, Decision) and event.id in eligible:
            items = eligible[event.id]
            expected = items.release, len(items.titles)
            if (event.release, event.eligible) != expected:
                logged = event.release, event.eligible
                yield f"decision {event.id}: expected release, items {expected}, found {logged}"


def context_faults(
    eligible: Mapping[str, EligibleItems], shared: Callable[[str], bool], events: Iterable[Event]
) -> Iterator[str]:
    """Yield contexts that are missing or must not be shared, and texts with several vectors."""
    vectors_by_text: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Decision) and event.id in eligible:
            if (event.context is not None) != shared(event.id):
                expected = "a context" if shared(event.id) else "none"
                yield f"decision {event.id}: expected {expected}, found {event.context}"
            elif event.context is not None:
                vectors_by_text[eligible[event.id].context or ""].add(event.context)

    vectors = set().union(*vectors_by_text.values())
    if any(len(own) > 1 for own in vectors_by_text.values()) or len(vectors) < len(vectors_by_text):
        yield f"contexts: expected one vector for each text, found {dict(vectors_by_text)}"
