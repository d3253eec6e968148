"""Replays: what a policy would have recommended along the way that a real user really went.

At each step of a user's later history the policy recommends K items that the user has not had. A recommended item that
the user liked at that step or later is a click (+1); one that was seen and not is -1. The user's way is the logged one
whatever is recommended, so every policy meets the same states and the comparison is paired. It measures foresight, not
persuasion. Refuses to know where scores come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration import sequential
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.tables import Interactions


@dataclass(frozen=True)
class Trajectory:
    """A user's way: item rows had before, then the later events' rows, kinds and likes, and the contexts of each."""

    user: int
    before: NDArray[np.int64]
    before_kinds: NDArray[np.int64]
    later: NDArray[np.int64]
    kinds: NDArray[np.int64]
    liked: NDArray[np.bool_]
    contexts: NDArray[np.int64]

    def steps(self) -> Iterator[tuple[int, NDArray[np.int64], set[int]]]:
        """Yield the step, the rows to exclude, and the rows that would be clicked."""
        for step in range(len(self.later)):
            seen = np.concatenate([self.before, self.later[:step]])
            wanted = set(self.later[step:][self.liked[step:]].tolist()) - set(seen.tolist())
            yield step, seen, wanted


def journeys(interactions: Interactions, start: int, stop: int) -> list[Trajectory]:
    """Return the way of every user with an event in start < time <= stop (seconds), later events beyond it left out."""
    found = []
    order = np.argsort(interactions.user, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(interactions.user[order])) + 1):
        time = interactions.time[rows]
        before, later = rows[time <= start], rows[(time > start) & (time <= stop)]
        if len(later):
            found.append(
                Trajectory(
                    user=int(interactions.user[rows[0]]),
                    before=interactions.item[before],
                    before_kinds=interactions.kind[before],
                    later=interactions.item[later],
                    kinds=interactions.kind[later],
                    liked=interactions.reward[later] > 0,
                    contexts=interactions.context[later],
                )
            )
    return found


@dataclass(frozen=True)
class Replay:
    """Slates of one journey: items int64 [s, K] (-1 for none), propensities float64 [s, K], clicks bool [s, K]."""

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
    journey: Trajectory,
    scores: NDArray[np.float32],
    slots: int,
    pool: int,
    epsilon: float,
    rng: np.random.Generator,
) -> Replay:
    """Replay a journey with scores float32 [s, n], one row a step (or [1, n] for all), under scheme `sequential`."""
    s = len(journey.later)
    out = Replay(
        items=np.full((s, slots), -1, np.int64),
        ranks=np.zeros((s, slots), np.int64),
        conditional=np.ones((s, slots)),
        marginal=np.ones((s, slots)),
        clicks=np.zeros((s, slots), np.bool_),
    )
    for step, seen, wanted in journey.steps():
        row = scores[min(step, len(scores) - 1)].astype(np.float64)
        row[seen] = -np.inf
        size = min(max(pool, slots), int(np.isfinite(row).sum()))
        greedy = np.argsort(-row, kind="stable")[:size] if size else np.empty(0, np.int64)
        drawn = sequential.draw(
            min(slots, size),
            size,
            epsilon,
            [tuple(pair) for pair in rng.random((slots, 2)).tolist()],
        )
        k = len(drawn.ranks)
        out.items[step, :k] = greedy[drawn.ranks]
        out.ranks[step, :k], out.conditional[step, :k], out.marginal[step, :k] = (
            drawn.ranks,
            drawn.conditional,
            drawn.marginal,
        )
        out.clicks[step, :k] = [int(item) in wanted for item in greedy[drawn.ranks]]
    return out


def decisions_of(replays: Sequence[tuple[int, int, NDArray[np.int64], Replay]]) -> Decisions:
    """Turn replays into logged decisions; each comes with its history's place, the events before, and its contexts."""
    parts = [replay for *_, replay in replays]
    steps = [len(part.items) for part in parts]
    history = np.repeat([place for place, *_ in replays], steps).astype(np.int64)
    items = np.concatenate([part.items for part in parts])
    clicks = np.concatenate([part.clicks for part in parts])
    return Decisions(
        history=history,
        position=np.concatenate(
            [
                before + np.arange(count)
                for (_, before, *_), count in zip(replays, steps, strict=True)
            ]
        ),
        items=items,
        logged=np.concatenate([part.marginal for part in parts]),
        conditional=np.concatenate([part.conditional for part in parts]),
        reward=np.where(clicks, 1.0, -1.0).astype(np.float32),
        judged=items >= 0,
        context=np.concatenate([contexts for _, _, contexts, _ in replays]).astype(np.int64),
        ranks=np.concatenate([part.ranks for part in parts]),
        group=history,
    )
