"""Compares the items a decision could choose from with the slate and with its event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from sanderling import Slate
from sanderling.events.schema import Decision, Event
from tests.support.fleet.shelf import Choice


def choice_faults(
    slates: Mapping[str, Slate], choices: Mapping[str, Choice], found: Iterable[Event]
) -> Iterator[str]:
    """Yield slates with items that could not be chosen, and events with a wrong release or size."""
    for id, slate in slates.items():
        choice = choices[id]
        if slate.release != choice.release:
            yield f"another release: {id}: {slate.release}, expected {choice.release}"
        for item in slate:
            if choice.titles.get(item.id) != item.title:
                yield f"not to be shown: {id}: {item.id} as {item.title}, expected {choice.titles.get(item.id)}"
    for event in found:
        if isinstance(event, Decision) and event.id in choices:
            expected = choices[event.id].release, len(choices[event.id].titles)
            if (event.release, event.eligible) != expected:
                yield f"another choice: {event.id}: release and items {event.release, event.eligible}, not {expected}"


def context_faults(
    choices: Mapping[str, Choice], shared: Callable[[str], bool], found: Iterable[Event]
) -> Iterator[str]:
    """Yield contexts that are missing, not to be shared, or not one vector for one text."""
    codes: dict[str, set[str]] = defaultdict(set)
    for event in found:
        if isinstance(event, Decision) and event.id in choices:
            if (event.context is not None) != shared(event.id):
                yield f"context: {event.id}: found {event.context}, to be shared: {shared(event.id)}"
            elif event.context is not None:
                codes[choices[event.id].context or ""].add(event.context)
    if any(len(told) > 1 for told in codes.values()) or len(set().union(*codes.values())) < len(
        codes
    ):
        yield f"contexts: not one vector for each text: {dict(codes)}"
