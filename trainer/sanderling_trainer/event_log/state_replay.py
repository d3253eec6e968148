"""Replays events to rebuild the user states that decisions were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sanderling.events.schema import Decision, Event, Observation, Outcome, StateReset
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.data.histories import History


def split_at_resets(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Split one pseudonym's events before each reset of its state."""
    resets = [row for row, event in enumerate(events) if isinstance(event, StateReset)]
    bounds = [0, *resets, len(events)]
    return [events[start:end] for start, end in pairwise(bounds)]


class StateReplay:
    """One user state, step by step.

    A device counts and checksums all steps; the trainer's history has only those on items of its
    catalog. So for each number of steps this keeps the checksum and the length of the history.
    """

    def __init__(self, row_of: Mapping[str, int]) -> None:
        self._row_of = row_of
        self._items: list[int] = []
        self._kinds: list[str] = []
        self._times: list[int] = []
        self._seqs: list[int] = []
        self._is_response: list[bool] = []
        self._checksums = [NO_EVENTS]
        self._lengths = [0]
        self._n_replayed = 0

    def add(self, event: Event, time_s: int) -> None:
        """Apply the next event, at `time_s` seconds since 1970, if it changes the state."""
        if isinstance(event, StateReset):
            for item, kind in event.steps:
                self._step(event, item, kind, time_s)
            self._n_replayed = len(self._items)
        elif isinstance(event, Observation) or (isinstance(event, Outcome) and event.updates_state):
            self._step(event, event.item, event.kind, time_s)

    def _step(self, event: Event, item: str, kind: str, time_s: int) -> None:
        self._checksums.append(next_checksum(self._checksums[-1], item, kind))
        if item in self._row_of:
            self._items.append(self._row_of[item])
            self._kinds.append(kind)
            self._times.append(time_s)
            self._seqs.append(event.seq)
            self._is_response.append(isinstance(event, Outcome))
        self._lengths.append(len(self._items))

    def position_of(self, decision: Decision) -> int | None:
        """Return the length of the history before a decision; None if the state was another."""
        steps = decision.state_events
        if steps >= len(self._checksums) or self._checksums[steps] != decision.state_checksum:
            return None
        return self._lengths[steps]

    def history(self, code_of: Mapping[str, int]) -> History:
        """Return all steps as a history; unknown kinds get the code 0."""
        return History(
            items=np.array(self._items, np.int64),
            kinds=np.array([code_of.get(kind, 0) for kind in self._kinds], np.int64),
            liked=np.array([kind != "dislike" for kind in self._kinds], np.bool_),
            contexts=np.full(len(self._items), -1, np.int64),
            is_validation=np.zeros(len(self._items), np.bool_),
            times=np.array(self._times, np.int64),
            n_replayed=self._n_replayed,
            seqs=np.array(self._seqs, np.int64),
            is_response=np.array(self._is_response, np.bool_),
        )
