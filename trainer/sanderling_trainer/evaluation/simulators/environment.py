"""The interface of a simulated environment, and sessions in which users are shown slates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import Bools, ClickModel, Floats, Ints


class Environment(Protocol):
    """Users 0 … users - 1 and items 0 … n - 1, whose click probabilities are known."""

    @property
    def texts(self) -> Sequence[str]:
        """The items' texts, n of them."""

    @property
    def users(self) -> int:
        """The number of users."""

    @property
    def steps(self) -> int:
        """The number of slates in a session; no item is shown twice in it."""

    @property
    def click_model(self) -> ClickModel:
        """How users read a slate."""

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return float64 [b, n]: the probability that a user clicks an item that is examined."""

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return which items exist for each user at a time, bool [b, n]."""


@dataclass(frozen=True)
class Feedback:
    """The response of b users to slates of K slots."""

    clicks: Bools
    """Bool [b, K]."""

    examined: Bools
    """The slots that were looked at, bool [b, K]."""

    click_probability: Floats
    """The exact probability of each click, float64 [b, K]; no policy may use it."""

    @property
    def reward(self) -> Floats:
        """+1 for a click, -1 for none, float64 [b, K]."""
        return np.where(self.clicks, 1.0, -1.0)


class Session:
    """b users side by side, each shown a slate a step; a shown item is no longer eligible."""

    def __init__(
        self, environment: Environment, users: Ints, rng: np.random.Generator, time: int = 0
    ) -> None:
        """Start at `time`, the environment's time during the whole session."""
        self.environment = environment
        self.users = np.asarray(users, np.int64)
        self.time = time
        self.attraction = environment.attraction(self.users, time)
        self.eligible = environment.eligible(self.users, time).copy()
        self.steps_taken = 0
        self._rng = rng

    @property
    def done(self) -> bool:
        """Whether all slates of the session have been shown."""
        return self.steps_taken >= self.environment.steps

    def step(self, slates: Ints) -> Feedback:
        """Show slates int64 [b, K], -1 for an empty slot, and return the response.

        Raises:
            ValueError: the session has ended, the shape is wrong, or an item is not eligible or
                comes twice.
        """
        click_model = self.environment.click_model
        shape = len(self.users), click_model.slots
        if self.done:
            raise ValueError(
                f"expected a session of {self.environment.steps} slates, found one more"
            )
        if slates.shape != shape:
            raise ValueError(f"expected slates of shape {shape}, found {slates.shape}")

        # Slot by slot, so that an item that comes twice in one slate is not eligible again.
        for slot in range(click_model.slots):
            self._use_up(slates[:, slot], slot)
        self.steps_taken += 1

        attraction = np.take_along_axis(self.attraction, np.maximum(slates, 0), axis=1)
        attraction = attraction * (slates >= 0)
        clicks, examined = click_model.draw(attraction, self._rng)
        return Feedback(clicks, examined, click_model.probabilities(attraction))

    def _use_up(self, items: Ints, slot: int) -> None:
        rows = np.flatnonzero(items >= 0)
        ineligible = rows[~self.eligible[rows, items[rows]]]
        if len(ineligible):
            user = ineligible[0]
            raise ValueError(
                f"expected an eligible item, found {items[user]} at user {user}, slot {slot}"
            )
        self.eligible[rows, items[rows]] = False


def slate_value(environment: Environment, users: Ints, slates: Ints, time: int = 0) -> Floats:
    """Return the exact expected clicks float64 [b] of showing each user a slate int64 [b, K]."""
    attraction = np.take_along_axis(environment.attraction(users, time), slates, axis=1)
    return environment.click_model.probabilities(attraction).sum(axis=1)


def uniform_value(environment: Environment, users: Ints, time: int = 0) -> Floats:
    """Return the exact expected clicks float64 [b] of one examined slot with a random item."""
    eligible = environment.eligible(users, time)
    attraction = environment.attraction(users, time) * eligible
    return attraction.sum(axis=1) / eligible.sum(axis=1)
