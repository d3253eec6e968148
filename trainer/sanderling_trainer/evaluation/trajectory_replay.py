"""Replay: what a policy would have recommended along a user's logged trajectory.

At each step of a user's later history the policy recommends K items that the user has not had.
A recommended item that the user liked at that step or later is a click (reward +1); any other is
not (-1). The trajectory is the logged one whatever is recommended, so every policy meets the same
states and comparisons are paired. Replay measures prediction, not the effect of recommending.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration import sequential
from sanderling_trainer.data.tables import Interactions


@dataclass(frozen=True)
class Trajectory:
    """One user's events, split into those before a time and the later ones that are replayed."""

    user: int
    """The user's code in the log."""

    before: NDArray[np.int64]
    """Item rows of the earlier events, int64 [b]."""

    before_kinds: NDArray[np.int64]
    """Kinds of the earlier events, int64 [b]."""

    later: NDArray[np.int64]
    """Item rows of the later events, int64 [s]."""

    kinds: NDArray[np.int64]
    """Kinds of the later events, int64 [s]."""

    liked: NDArray[np.bool_]
    """Which of the later events were likes, bool [s]."""

    contexts: NDArray[np.int64]
    """Contexts of the later events, int64 [s], -1 for none."""

    def steps(self) -> Iterator[tuple[int, NDArray[np.int64], set[int]]]:
        """Yield each step, the rows to exclude at it, and the rows that would be clicked."""
        for step in range(len(self.later)):
            seen = np.concatenate([self.before, self.later[:step]])
            liked_later = self.later[step:][self.liked[step:]]
            yield step, seen, set(liked_later.tolist()) - set(seen.tolist())


def trajectories(interactions: Interactions, start: int, stop: int) -> list[Trajectory]:
    """Return one trajectory for every user with an event in start < time <= stop (seconds).

    Events after `stop` are left out.
    """
    order = np.argsort(interactions.user, kind="stable")
    user_starts = np.flatnonzero(np.diff(interactions.user[order])) + 1
    result = []
    for rows in np.split(order, user_starts):
        time = interactions.time[rows]
        before = rows[time <= start]
        later = rows[(time > start) & (time <= stop)]
        if not len(later):
            continue
        trajectory = Trajectory(
            user=int(interactions.user[rows[0]]),
            before=interactions.item[before],
            before_kinds=interactions.kind[before],
            later=interactions.item[later],
            kinds=interactions.kind[later],
            liked=interactions.reward[later] > 0,
            contexts=interactions.context[later],
        )
        result.append(trajectory)
    return result


@dataclass(frozen=True)
class Replay:
    """The slates of one trajectory, s steps of K slots.

    items and ranks int64 [s, K] (item -1 for an empty slot), conditional and marginal
    propensities float64 [s, K], clicks bool [s, K].
    """

    items: NDArray[np.int64]
    ranks: NDArray[np.int64]
    conditional: NDArray[np.float64]
    marginal: NDArray[np.float64]
    clicks: NDArray[np.bool_]

    @property
    def shown(self) -> int:
        """How many slots were filled."""
        return int((self.items >= 0).sum())


def replay(
    trajectory: Trajectory,
    scores: NDArray[np.float32],
    slots: int,
    pool: int,
    epsilon: float,
    rng: np.random.Generator,
) -> Replay:
    """Replay a trajectory under scheme `sequential`.

    scores float32 [s, n] has one row a step, or [1, n] one row for all steps.
    """
    steps = len(trajectory.later)
    result = Replay(
        items=np.full((steps, slots), -1, np.int64),
        ranks=np.zeros((steps, slots), np.int64),
        conditional=np.ones((steps, slots)),
        marginal=np.ones((steps, slots)),
        clicks=np.zeros((steps, slots), np.bool_),
    )
    for step, seen, clickable in trajectory.steps():
        row = scores[min(step, len(scores) - 1)].astype(np.float64)
        row[seen] = -np.inf
        size = min(max(pool, slots), int(np.isfinite(row).sum()))
        greedy = np.argsort(-row, kind="stable")[:size] if size else np.empty(0, np.int64)

        uniforms = [tuple(pair) for pair in rng.random((slots, 2)).tolist()]
        drawn = sequential.draw(min(slots, size), size, epsilon, uniforms)

        k = len(drawn.ranks)
        shown = greedy[drawn.ranks]
        result.items[step, :k] = shown
        result.ranks[step, :k] = drawn.ranks
        result.conditional[step, :k] = drawn.conditional
        result.marginal[step, :k] = drawn.marginal
        result.clicks[step, :k] = [int(item) in clickable for item in shown]
    return result
