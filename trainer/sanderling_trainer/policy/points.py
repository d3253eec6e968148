"""What the warm start predicts: at the points of a history where a user comes back, what is liked there and later.

A visit is a run of events with no gap longer than some hours. The state before a visit predicts the items liked for the
first time in it and, when a horizon is given, in the days that follow: a slate is shown before the visit, not between
two items of one basket. Without visits each event is a point of its own that predicts itself. Refuses to know tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.examples import History
from sanderling_trainer.data.trends import DAY

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
    histories: Sequence[History], visit_hours: float, horizon_days: float, repeats: bool, fresh: bool | None
) -> Points:
    """Return the points of histories: those after the inner split (`fresh`), those before it, or all (None).

    Points before the split have no targets behind it.
    """
    columns: list[list[int]] = [[] for _ in range(6)]
    for place, history in enumerate(histories):
        wanted = history.liked if fresh is None else history.liked & (history.fresh == fresh)
        for at, targets in _visits(history, wanted, visit_hours, horizon_days, repeats):
            if fresh is not None and history.fresh[at] != fresh:
                continue
            point = (place, at, history.contexts[at], history.times[at] // DAY)
            for column, value in zip(columns, point, strict=False):
                column.append(int(value))
            columns[4] += [len(columns[0]) - 1] * len(targets)
            columns[5] += targets
    return Points(*(np.array(column, np.int64) for column in columns))


def _visits(
    history: History, wanted: NDArray[np.bool_], visit_hours: float, horizon_days: float, repeats: bool
) -> Iterator[tuple[int, list[int]]]:
    times = np.maximum.accumulate(history.times)
    gaps = np.diff(times, prepend=times[:1] - DAY * 10_000) > visit_hours * 3600
    starts = np.flatnonzero(gaps) if visit_hours > 0 else np.arange(len(history))
    had: set[int] = set()
    for start, stop in zip(starts, [*starts[1:], len(history)], strict=True):
        end = max(stop, int(np.searchsorted(times, times[start] + horizon_days * DAY))) if horizon_days else stop
        targets = set(history.items[start:end][wanted[start:end]].tolist()) - (set() if repeats else had)
        if targets:
            yield int(start), sorted(targets)
        had.update(history.items[start:stop].tolist())
