"""What every world can tell, and sessions: users who meet slate after slate.

Refuses to know policies, and where a world's truth comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import Bools, ClickModel, Floats, Ints


class World(Protocol):
    """Users 0 … users - 1 and items 0 … n - 1 with their texts; `steps` slates make a session; no item comes twice."""

    @property
    def texts(self) -> Sequence[str]:
        """The items' texts, n of them."""

    @property
    def users(self) -> int:
        """How many users there are."""

    @property
    def steps(self) -> int:
        """How many slates a session has."""

    @property
    def clicks(self) -> ClickModel:
        """How users read a slate."""

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return the probability float64 [b, n] that each user clicks each item that he looks at, at a time."""

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return which items exist for each user at a time, bool [b, n]."""


@dataclass(frozen=True)
class Feedback:
    """The answer to slates of b users: clicks bool [b, K], slots looked at bool [b, K], and the true probability of
    each click float64 [b, K], which no policy may use."""

    clicks: Bools
    seen: Bools
    chance: Floats

    @property
    def reward(self) -> Floats:
        """+1 for a click, -1 for none, float64 [b, K]."""
        return np.where(self.clicks, 1.0, -1.0)


class Session:
    """b users of a world side by side, each shown a slate a step; what a user was shown is not eligible again."""

    def __init__(self, world: World, users: Ints, rng: np.random.Generator, time: int = 0) -> None:
        """`time` is the world's time of the whole session."""
        self.world, self.users, self.time, self._rng = world, np.asarray(users, np.int64), time, rng
        self.attraction = world.attraction(self.users, time)
        self.eligible = world.eligible(self.users, time).copy()
        self.taken = 0

    @property
    def done(self) -> bool:
        """Whether all slates of the session were shown."""
        return self.taken >= self.world.steps

    def step(self, slates: Ints) -> Feedback:
        """Show slates int64 [b, K], -1 for an empty slot, and return the answer.

        Raises ValueError for a slate of another shape, an item that is not eligible or comes twice, and after the end.
        """
        expected = len(self.users), self.world.clicks.slots
        if self.done:
            raise ValueError(f"expected a session of {self.world.steps} slates, found one more")
        if slates.shape != expected:
            raise ValueError(f"expected slates of shape {expected}, found {slates.shape}")
        for slot in range(expected[1]):
            self._take(slates[:, slot], slot)
        self.taken += 1
        attraction = np.take_along_axis(self.attraction, np.maximum(slates, 0), axis=1) * (
            slates >= 0
        )
        clicks, seen = self.world.clicks.draw(attraction, self._rng)
        return Feedback(clicks, seen, self.world.clicks.probabilities(attraction))

    def _take(self, shown: Ints, slot: int) -> None:
        rows = np.flatnonzero(shown >= 0)
        refused = rows[~self.eligible[rows, shown[rows]]]
        if len(refused):
            raise ValueError(
                f"expected an eligible item, found {shown[refused[0]]} at user {refused[0]}, slot {slot}"
            )
        self.eligible[rows, shown[rows]] = False


def slate_value(world: World, users: Ints, slates: Ints, time: int = 0) -> Floats:
    """Return the exact expected clicks float64 [b] of showing each user a slate int64 [b, K]."""
    attraction = np.take_along_axis(world.attraction(users, time), slates, axis=1)
    return world.clicks.probabilities(attraction).sum(axis=1)


def uniform_value(world: World, users: Ints, time: int = 0) -> Floats:
    """Return the exact expected clicks float64 [b] of one slot looked at with an eligible item drawn at random."""
    eligible = world.eligible(users, time)
    return (world.attraction(users, time) * eligible).sum(axis=1) / eligible.sum(axis=1)
