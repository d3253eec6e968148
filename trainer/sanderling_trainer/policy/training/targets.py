"""Targets of the warm start: what is liked at, and after, each point where a user comes back.

A visit is a run of events with no gap longer than some hours. The state before a visit predicts the
items liked for the first time in it and, where a horizon is given, in the days that follow: a slate
is shown before a visit, not between two items of one basket. Without visits each event is a point
of its own, which predicts itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.influence import influence_factors
from sanderling_trainer.data.popularity import DAY

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """q points in histories, and p pairs of a point and an item liked there."""

    row: Ints
    """[q], index of the point's history."""

    position: Ints
    """[q], how many events of the history precede the point."""

    context: Ints
    """[q], row of the context table, -1 for none."""

    day: Ints
    """[q], days since 1970."""

    point: Ints
    """[p], index of the pair's point."""

    target: Ints
    """[p], catalog row of the pair's item."""

    event: Ints
    """[p], the event in which it is liked, counted through all histories."""

    influence: NDArray[np.float32]
    """[p], `History.influence` of this event."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def weight(self) -> NDArray[np.float32]:
        """Weights [p] of the pairs.

        A point of t targets weighs √t: halfway between counting each visit and each item alike.
        """
        targets_of_point = np.bincount(self.point, minlength=len(self))
        return (targets_of_point[self.point] ** -0.5).astype(np.float32)


def targets_of(
    histories: Sequence[History],
    visit_hours: float,
    horizon_days: float,
    repeats: bool,
    validation: bool | None,
) -> Targets:
    """Return the points and targets of histories.

    repeats: whether an item that the user had before may be a target.
    validation: only points and targets after the inner split if True, before it if False; all if
    None.
    """
    events = _Events.of(histories)
    start, end = _visits(events, visit_hours, horizon_days)
    visit, event = _runs(start, end)

    # What a state reset replayed is not new behaviour.
    wanted = (events.liked & ~events.is_response & ~events.is_replayed)[event]
    if validation is not None:
        in_part = events.is_validation == validation
        wanted &= in_part[event] & in_part[start][visit]
    if not repeats:
        wanted &= _first_occurrence(events)[event] >= start[visit]

    # An item liked twice in a visit is one target; one number stands for a pair.
    event = event[wanted]
    pairs, chosen = np.unique(visit[wanted] * events.width + events.items[event], return_index=True)
    event = event[chosen]
    visit, target = np.divmod(pairs, events.width)
    visits, point = np.unique(visit, return_inverse=True)

    first = start[visits]
    row = events.row[first]
    return Targets(
        row=row,
        position=first - events.offset[row],
        context=events.contexts[first],
        day=events.times[first] // DAY,
        point=point.astype(np.int64),
        target=target,
        event=event,
        influence=events.influence[event],
    )


def with_bounded_influence(
    histories: Sequence[History], visit_hours: float, horizon_days: float, repeats: bool
) -> list[History]:
    """Return histories whose `influence` bounds what each install teaches as targets.

    Bounded are the weights of an install's pairs together, and of those of one item
    (`influence.influence_factors`); the other arguments are those of `targets_of`.
    """
    targets = targets_of(histories, visit_hours, horizon_days, repeats, validation=None)
    install = np.array([history.install for history in histories], np.int64)
    owner = install[targets.row][targets.point]
    factors = influence_factors(owner, targets.weight.astype(np.float64), targets.target)

    # All pairs of an event have its install and item, and so one factor.
    factor = np.ones(sum(len(history) for history in histories), np.float32)
    factor[targets.event] = factors

    bounded = []
    start = 0
    for history in histories:
        stop = start + len(history)
        bounded.append(replace(history, influence=factor[start:stop]))
        start = stop
    return bounded


@dataclass(frozen=True)
class _Events:
    """The e events of all histories, one history after the other."""

    row: Ints
    """[e], index of the event's history."""

    offset: Ints
    """[h], where each history begins."""

    items: Ints
    liked: NDArray[np.bool_]
    is_validation: NDArray[np.bool_]
    is_response: NDArray[np.bool_]
    contexts: Ints
    times: Ints
    influence: NDArray[np.float32]
    is_replayed: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """One more than any item's row, so that `x * width + item` stands for a pair (x, item)."""
        return int(self.items.max(initial=0)) + 1

    @staticmethod
    def of(histories: Sequence[History]) -> _Events:
        lengths = np.array([len(history) for history in histories], np.int64)

        def column(name: str, dtype: type) -> NDArray:
            parts = (getattr(history, name) for history in histories)
            return np.concatenate([np.empty(0, dtype), *parts])

        first = np.cumsum(lengths) - lengths
        n_replayed = np.array([history.n_replayed for history in histories], np.int64)
        return _Events(
            row=np.repeat(np.arange(len(lengths)), lengths),
            offset=first,
            items=column("items", np.int64),
            liked=column("liked", np.bool_),
            is_validation=column("is_validation", np.bool_),
            is_response=column("is_response", np.bool_),
            contexts=column("contexts", np.int64),
            times=column("times", np.int64),
            influence=column("influence", np.float32),
            is_replayed=np.arange(lengths.sum()) < np.repeat(first + n_replayed, lengths),
        )


def _visits(events: _Events, visit_hours: float, horizon_days: float) -> tuple[Ints, Ints]:
    """Return the events with which visits start, and those before which their targets end."""
    horizon = math.ceil(horizon_days * DAY)

    # One rising clock over all histories: each is shifted behind the horizon of the one before, so
    # that neither a gap nor a horizon reaches into the next history.
    earliest = events.times.min(initial=2**40)
    latest = events.times.max(initial=0)
    shift = events.row * (latest - earliest + horizon + 1)
    clock = np.maximum.accumulate(events.times - earliest + shift)

    starts_visit = np.ones(len(clock), np.bool_)
    if visit_hours > 0:
        gap = np.diff(clock) > visit_hours * 3600
        starts_visit[1:] = gap | (np.diff(events.row) > 0)
    start = np.flatnonzero(starts_visit)
    end = np.append(start[1:], len(clock))[: len(start)]

    if horizon:
        end = np.maximum(end, np.searchsorted(clock, clock[start] + horizon))
    return start, end


def _runs(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return (run, member): the members of the runs from `start` up to `end`, and their runs."""
    length = end - start
    run = np.repeat(np.arange(len(start)), length)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(length) - length - start, length)


def _first_occurrence(events: _Events) -> Ints:
    """Return for each event the first event in which its user has its item, int64 [e]."""
    pairs = events.row * events.width + events.items
    _, first, pair = np.unique(pairs, return_index=True, return_inverse=True)
    return first[pair]
