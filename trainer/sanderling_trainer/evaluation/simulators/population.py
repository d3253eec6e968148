"""A population with known tastes, fitted to a real log, in which items are born and tastes drift.

The click probabilities are those of `fitted.FittedEnvironment`: factors and popularity of the
users' items. Users do not click what they had. Some items are left out of the log and appear
later, so many each night; their truth is that of the whole log. It is a test bed for loops that
retrain every night, and no model of how real users behave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    Floats,
    Ints,
    PositionBias,
)
from sanderling_trainer.evaluation.simulators.fitted import (
    FittedEnvironment,
    SimulatorSettings,
    fit_simulator,
)

DAY = 86_400  # seconds
MIN_EVENTS = 5
"""Users with fewer events are left out: their tastes could not be fitted."""


@dataclass(frozen=True)
class PopulationSettings:
    """How large a population is, and how fast its world moves."""

    users: int = 600
    items: int = 1000
    nights: int = 14

    new_item_share: float = 0.15
    """The share of items that are born on nights 1 … nights - 1."""

    mean_attraction: float = 0.02
    """Over all users and items, in (0, 1)."""

    drift: float = 0.03
    """Radians a night by which tastes turn to those of others; popularity turns by half of it."""

    slots: int = 10

    examination: float = 0.95
    """Slot k, from 0, is examined with this probability to the power of k."""


@dataclass(frozen=True)
class Population:
    """u users, n items in the order of their birth, and what was known before the first night."""

    truth: FittedEnvironment

    user: Ints
    """int64 [e], the user of each event before the first night. From u on they are the log's other
    users, to whom the truth was fitted as well and who take no part in the nights."""

    item: Ints
    """int64 [e]."""

    time: Ints
    """Seconds since 1970, int64 [e], rising."""

    original_item: Ints
    """int64 [n], each item's row in the log that the population was fitted to."""

    first_day: int
    """Days since 1970 of night 0, the day after the log's end."""

    @property
    def users(self) -> int:
        """u."""
        return self.truth.users

    @property
    def items(self) -> int:
        """n, those that are born later included."""
        return len(self.truth.texts)

    @property
    def texts(self) -> Sequence[str]:
        """The items' texts."""
        return self.truth.texts

    @property
    def examination(self) -> Floats:
        """The probability that each slot is examined, float64 [K]."""
        model = self.truth.click_model
        return model.probabilities(np.ones(model.slots))

    def born(self, night: int) -> int:
        """Return how many items exist on a night: the first so many rows."""
        return int((self.truth.available_from <= night).sum())

    def attraction(self, night: int) -> Floats:
        """Return the probability that each user clicks each item examined, float64 [u, n]."""
        return self.truth.attraction(np.arange(self.users), night)


def fit_population(
    user: Ints,
    item: Ints,
    time: Ints,
    texts: Sequence[str],
    settings: PopulationSettings,
    rng: np.random.Generator,
) -> Population:
    """Fit a population to a log of positive events, int64 [e] each; `texts` has one an item.

    It has the log's most frequent items, and users drawn from those with at least five of them, to
    all of whom the truth is fitted; only a user's first event with an item counts.

    Raises `ValueError` where too few users or items are left to fit factors to.
    """
    user, item, time, kept = _dense(user, item, time, settings)
    truth = fit_simulator(
        user,
        item,
        [texts[row] for row in kept],
        PositionBias(tuple(settings.examination**slot for slot in range(settings.slots))),
        rng,
        SimulatorSettings(
            mean_attraction=settings.mean_attraction,
            drift=settings.drift,
            new_item_share=settings.new_item_share,
            horizon=max(1, settings.nights - 1),
        ),
    )
    truth, order = _by_birth(_half_as_fickle(truth))
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(len(order))

    # The truth is that of all users; some of them are the population.
    chosen = np.sort(rng.choice(truth.users, min(settings.users, truth.users), replace=False))
    others = np.setdiff1d(np.arange(truth.users), chosen)
    number_of = np.argsort(np.concatenate([chosen, others]))
    known = truth.available_from[row_of[item]] == 0
    return Population(
        truth=replace(truth, user_factors=truth.user_factors[:, chosen]),
        user=number_of[user[known]],
        item=row_of[item[known]],
        time=time[known],
        original_item=kept[order],
        first_day=int(time.max()) // DAY + 1,
    )


def _dense(
    user: Ints, item: Ints, time: Ints, settings: PopulationSettings
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the first events of active users with frequent items, renumbered, in order of time.

    The last column has the frequent items' rows.
    """
    order = np.argsort(time, kind="stable")
    user, item, time = user[order], item[order], time[order]
    _, first = np.unique(np.stack([user, item]), axis=1, return_index=True)
    first.sort()
    user, item, time = user[first], item[first], time[first]

    counts = np.bincount(item)
    kept = np.sort(np.argsort(-counts, kind="stable")[: settings.items])
    is_kept = np.isin(item, kept)
    user, item, time = user[is_kept], np.searchsorted(kept, item[is_kept]), time[is_kept]

    active = np.flatnonzero(np.bincount(user) >= MIN_EVENTS)
    is_active = np.isin(user, active)
    return np.searchsorted(active, user[is_active]), item[is_active], time[is_active], kept


def _half_as_fickle(truth: FittedEnvironment) -> FittedEnvironment:
    """Let popularity drift to a mixture of an item's own and another's, not to another's alone."""
    now, later = truth.popularity
    return replace(truth, popularity=np.stack([now, (now + later) / np.sqrt(2.0)]))


def _by_birth(truth: FittedEnvironment) -> tuple[FittedEnvironment, Ints]:
    """Return the truth with its items in the order of birth, and their rows before."""
    order = np.argsort(truth.available_from, kind="stable")
    ordered = replace(
        truth,
        texts=[truth.texts[row] for row in order],
        item_factors=truth.item_factors[order],
        popularity=truth.popularity[:, order],
        available_from=truth.available_from[order],
    )
    return ordered, order
