"""Rebuilds users' states from events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sanderling.events.schema import Decision, Event, Observation, Outcome, StateReset
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.data.histories import History


def parts(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Cut one pseudonym's events where its state began anew."""
    starts = [at for at, event in enumerate(events) if isinstance(event, StateReset)]
    return [events[begin:end] for begin, end in pairwise([0, *starts, len(events)])]


class StateReplay:
    """What one state was made of: the steps on items that the lab knows, and the checksum after each step of all."""

    def __init__(self, row_of: Mapping[str, int]) -> None:
        self._row_of = row_of
        self._items: list[int] = []
        self._kinds: list[str] = []
        self._times: list[int] = []
        self._checks, self._known, self._told = [NO_EVENTS], [0], 0

    def follow(self, event: Event, time_s: int) -> None:
        """Take an event of the pseudonym, in its order: whether and how it moved the state."""
        if isinstance(event, StateReset):
            for item, kind in event.steps:
                self._step(item, kind, time_s)
            self._told = len(self._items)
        elif isinstance(event, Observation) or (isinstance(event, Outcome) and event.updates_state):
            self._step(event.item, event.kind, time_s)

    def _step(self, item: str, kind: str, time_s: int) -> None:
        self._checks.append(next_checksum(self._checks[-1], item, kind))
        if item in self._row_of:
            self._items.append(self._row_of[item])
            self._kinds.append(kind)
            self._times.append(time_s)
        self._known.append(len(self._items))

    def at(self, decision: Decision) -> int | None:
        """Return how many known steps had made the state that a decision was for; None for another state."""
        fits = (
            decision.state_events < len(self._checks)
            and self._checks[decision.state_events] == decision.state_checksum
        )
        return self._known[decision.state_events] if fits else None

    def history(self, code_of: Mapping[str, int]) -> History:
        """Return the steps so far; unknown kinds get the code 0."""
        return History(
            items=np.array(self._items, np.int64),
            kinds=np.array([code_of.get(kind, 0) for kind in self._kinds], np.int64),
            liked=np.array([kind != "dislike" for kind in self._kinds], np.bool_),
            contexts=np.full(len(self._items), -1, np.int64),
            fresh=np.zeros(len(self._items), np.bool_),
            times=np.array(self._times, np.int64),
            told=self._told,
        )
