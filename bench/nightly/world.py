"""A world with a known truth, fitted to a real log: tastes, popularity, drift, and items that are born.

    P(click | examined) = σ(a + b_i(t) + u(t)·v_i)

Factors and popularity come from a truncated SVD of the users' items (`simulators.fitted`). Users do
not click what they had. Slot k of a slate is examined with probability 0.95^k. Some items are left
out of the log and appear later, so many each night; their truth is that of the whole log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.ranking.data import Log
from sanderling_trainer.data.histories import History
from sanderling_trainer.evaluation.simulators.click_models import PositionBias
from sanderling_trainer.evaluation.simulators.fitted import (
    FittedEnvironment,
    SimulatorSettings,
    fit_simulator,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SLOTS = 10
DAY = 86_400
KINDS = ["view", "purchase", "click"]
PURCHASE, CLICK = 1, 2


@dataclass(frozen=True)
class WorldSettings:
    """How large a world is and how fast it moves."""

    users: int = 1300
    items: int = 2000
    nights: int = 14
    slates_per_user: int = 3
    organic_rate: float = 0.5
    new_item_share: float = 0.15
    mean_attraction: float = 0.02
    drift: float = 0.03
    """Radians a night by which tastes and popularity turn to others."""


@dataclass(frozen=True)
class World:
    """The truth, and what was known before the first night."""

    truth: FittedEnvironment
    histories: list[History]
    """One for each user, before the first night."""
    first_day: int
    """Days since 1970 of night 0."""
    settings: WorldSettings

    @property
    def items(self) -> int:
        """n, items that are born later included."""
        return len(self.truth.texts)

    def born(self, night: int) -> Bools:
        """Return which items exist on a night, bool [n]."""
        return self.truth.available_from <= night

    def attraction(self, night: int) -> Floats:
        """Return the click probability of each examined item, float64 [u, n]."""
        return self.truth.attraction(np.arange(self.truth.users), night)


def fit_world(log: Log, settings: WorldSettings, seed: int) -> World:
    """Fit a world to a log: its most frequent items, and users drawn from those with five of them."""
    rng = np.random.default_rng(seed)
    log = _dense(log, settings, rng)
    truth = fit_simulator(
        log.user,
        log.item,
        log.texts,
        PositionBias(tuple(0.95**slot for slot in range(SLOTS))),
        rng,
        SimulatorSettings(
            mean_attraction=settings.mean_attraction,
            drift=settings.drift,
            new_item_share=settings.new_item_share,
            horizon=settings.nights - 1,
        ),
    )
    # Popularity moves less than tastes: to a mixture of its own and another item's.
    now, later = truth.popularity
    truth = replace(truth, popularity=np.stack([now, (now + later) / np.sqrt(2.0)]))
    truth, row_of = _ordered_by_birth(truth)
    log = replace(log, item=row_of[log.item], texts=list(truth.texts))
    known = truth.available_from[log.item] == 0
    start = -(-int(log.time.max()) // DAY)
    histories = [
        _history(log.item[rows], log.time[rows])
        for rows in _rows_by_user(log.user, truth.users, known)
    ]
    return World(truth, histories, start, settings)


def _ordered_by_birth(truth: FittedEnvironment) -> tuple[FittedEnvironment, Ints]:
    """Return the truth with items in the order of their birth, and the new row of each old one."""
    order = np.argsort(truth.available_from, kind="stable")
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(len(order))
    return replace(
        truth,
        texts=[truth.texts[row] for row in order],
        item_factors=truth.item_factors[order],
        popularity=truth.popularity[:, order],
        available_from=truth.available_from[order],
    ), row_of


def _rows_by_user(user: Ints, users: int, keep: Bools) -> list[Ints]:
    rows = np.flatnonzero(keep)
    order = rows[np.argsort(user[rows], kind="stable")]
    return np.split(order, np.searchsorted(user[order], np.arange(1, users)))


def _history(items: Ints, times: Ints) -> History:
    n = len(items)
    return History(
        items=items,
        kinds=np.full(n, PURCHASE),
        liked=np.ones(n, np.bool_),
        contexts=np.full(n, -1),
        is_validation=np.zeros(n, np.bool_),
        times=times,
    )


def _dense(log: Log, settings: WorldSettings, rng: np.random.Generator) -> Log:
    """Return each user's first event with each of the most frequent items, both renumbered."""
    pairs = log.user * (log.item.max() + 1) + log.item
    _, first = np.unique(pairs, return_index=True)
    first = np.sort(first)
    user, item, time = log.user[first], log.item[first], log.time[first]

    counts = np.bincount(item)
    kept_items = np.sort(np.argsort(-counts, kind="stable")[: settings.items])
    row_of = np.full(len(counts), -1)
    row_of[kept_items] = np.arange(len(kept_items))
    keep = row_of[item] >= 0
    user, item, time = user[keep], row_of[item[keep]], time[keep]

    events = np.bincount(user)
    candidates = np.flatnonzero(events >= 5)
    chosen = rng.choice(candidates, min(settings.users, len(candidates)), replace=False)
    number = np.full(len(events), -1)
    number[chosen] = np.arange(len(chosen))
    keep = number[user] >= 0
    texts: Sequence[str] = [log.texts[row] for row in kept_items]
    return Log(number[user[keep]], item[keep], time[keep], list(texts))
