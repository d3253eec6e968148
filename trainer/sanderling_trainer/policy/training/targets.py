"""What the warm start predicts: at the points of a history where a user comes back, what is liked there and later.

A visit is a run of events with no gap longer than some hours. The state before a visit predicts the items liked for the
first time in it and, when a horizon is given, in the days that follow: a slate is shown before the visit, not between
two items of one basket. Without visits each event is a point of its own that predicts itself. Refuses to know tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """q points: the state of history `place[q]` after `at[q]` events, in `context[q]`, on `day[q]`.

    Point `point[p]` has the target item `target[p]`; p pairs in all.
    """

    place: Ints
    at: Ints
    context: Ints
    day: Ints
    point: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.at)

    @property
    def weight(self) -> NDArray[np.float32]:
        """Weights [p] of the pairs: a point counts as the root of its targets, halfway between visits and items."""
        return (np.bincount(self.point, minlength=len(self))[self.point] ** -0.5).astype(np.float32)


def points_of(
    histories: Sequence[History],
    visit_hours: float,
    horizon_days: float,
    repeats: bool,
    fresh: bool | None,
) -> Points:
    """Return the points of histories: those after the inner split (`fresh`), those before it, or all (None).

    Points before the split have no targets behind it.
    """
    events = _Events.of(histories)
    start, end = _visits(events, visit_hours, horizon_days)
    visit, event = _runs(start, end)
    asked = events.liked[event]
    if fresh is not None:
        asked &= (events.fresh[event] == fresh) & (events.fresh[start] == fresh)[visit]
    if not repeats:
        asked &= _first(events)[event] >= start[visit]
    pairs = np.unique(visit[asked] * events.width + events.items[event[asked]])
    visit, target = np.divmod(pairs, events.width)
    used, point = np.unique(visit, return_inverse=True)
    at = start[used]
    place = events.place[at]
    return Points(
        place,
        at - events.offset[place],
        events.contexts[at],
        events.times[at] // DAY,
        point.astype(np.int64),
        target,
    )


@dataclass(frozen=True)
class _Events:
    """The events of all histories, one history after the other: `place` is whose, `offset` where each one begins."""

    place: Ints
    offset: Ints
    items: Ints
    liked: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    contexts: Ints
    times: Ints

    @property
    def width(self) -> int:
        """More than any item's row, so that one number stands for a pair with an item."""
        return int(self.items.max(initial=0)) + 1

    @staticmethod
    def of(histories: Sequence[History]) -> _Events:
        lengths = np.array([len(history) for history in histories], np.int64)

        def column(name: str, dtype: type) -> NDArray:
            return np.concatenate(
                [np.empty(0, dtype), *(getattr(history, name) for history in histories)]
            )

        return _Events(
            np.repeat(np.arange(len(lengths)), lengths),
            np.cumsum(lengths) - lengths,
            column("items", np.int64),
            column("liked", np.bool_),
            column("fresh", np.bool_),
            column("contexts", np.int64),
            column("times", np.int64),
        )


def _visits(events: _Events, visit_hours: float, horizon_days: float) -> tuple[Ints, Ints]:
    """Return the events with which visits start, and those before which their targets end."""
    horizon = math.ceil(horizon_days * DAY)
    early, late = events.times.min(initial=2**40), events.times.max(initial=0)
    clock = np.maximum.accumulate(
        events.times - early + events.place * (late - early + horizon + 1)
    )
    new = np.ones(len(clock), np.bool_)
    if visit_hours > 0:
        new[1:] = (np.diff(clock) > visit_hours * 3600) | (np.diff(events.place) > 0)
    start = np.flatnonzero(new)
    stop = np.append(start[1:], len(clock))[: len(start)]
    return start, np.maximum(
        stop, np.searchsorted(clock, clock[start] + horizon)
    ) if horizon else stop


def _runs(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return which run each of its members belongs to, and the members, for the runs from start up to end."""
    length = end - start
    run = np.repeat(np.arange(len(start)), length)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(length) - length - start, length)


def _first(events: _Events) -> Ints:
    """Return for each event the first one in which its history has its item."""
    pairs = events.place * events.width + events.items
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    return first[which]
