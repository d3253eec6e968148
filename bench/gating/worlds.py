"""Simulated nights: users with known tastes, a log of the active policy, candidates of known worth.

Policies are score matrices, users x items; nothing is learned here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.estimation.slate_simulator import draw_ranks
from sanderling.exploration.sequential import marginals
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope

USERS = 400
ITEMS = 2000
FACTORS = 16
SLOTS = 10
POOL = 50
EPSILON = 0.1
RATE = 0.07
"""The active policy's click rate per examined slot, about."""

BIAS = 1.0 / np.arange(1, SLOTS + 1) ** 0.6
NAMES = ("independent", "position", "cascade")
CHANGES = ("by user", "by item")


@dataclass(frozen=True)
class World:
    """Clicks, the active policy, and how users look at slates."""

    name: str

    attraction: Any
    """The probability of a click once looked at, float64 [users, items]."""

    scores: Any
    """The active policy's, float64 [users, items]."""

    order: Any
    """Its first items, int64 [users, POOL]."""

    activity: Any
    """The share of the decisions that are a user's, float64 [users]: long-tailed."""

    @property
    def examination(self) -> Any:
        """θ of each slot, float64 [SLOTS]; without what earlier clicks do to it."""
        return np.ones(SLOTS) if self.name == "independent" else BIAS


def make(name: str, rng: np.random.Generator) -> World:
    """Draw a world: the true logits are popularity plus taste, the policy knows them with noise."""
    taste = rng.normal(size=(USERS, FACTORS)) @ rng.normal(size=(FACTORS, ITEMS)) / FACTORS**0.5
    logits = taste + rng.normal(size=ITEMS)
    noise = rng.normal(size=(USERS, FACTORS)) @ rng.normal(size=(FACTORS, ITEMS)) / FACTORS**0.5
    item_noise = rng.normal(size=ITEMS)
    scores = logits + 0.6 * noise + 0.6 * item_noise

    order = _first(scores)
    head = np.take_along_axis(logits, order[:, :SLOTS], axis=1)
    low, high = -30.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        if _sigmoid(head + middle).mean() > RATE:
            high = middle
        else:
            low = middle
    activity = rng.lognormal(0.0, 0.7, USERS)
    return World(name, _sigmoid(logits + low), scores, order, activity / activity.sum())


def draw_decisions(world: World, m: int, rng: np.random.Generator) -> Decisions:
    """Draw a night of the active policy."""
    user = rng.choice(USERS, m, p=world.activity)
    ranks = draw_ranks(m, SLOTS, POOL, EPSILON, rng)
    items = np.take_along_axis(world.order[user], ranks, axis=1)
    attraction = world.attraction[user[:, None], items]
    clicked = rng.random((m, SLOTS)) < attraction
    seen = rng.random((m, SLOTS)) < world.examination
    if world.name == "cascade":
        # After a click the user leaves with probability 1/2.
        leaves = clicked & seen & (rng.random((m, SLOTS)) < 0.5)
        gone = np.cumsum(leaves, axis=1) - leaves > 0
        seen &= ~gone
    logged = ope.sequential_propensities(ranks, SLOTS, POOL, EPSILON)
    return Decisions(
        history=user,
        position=np.zeros(m, np.int64),
        items=items,
        marginal=logged.marginal,
        conditional=logged.conditional,
        reward=np.where(clicked & seen, 1.0, -1.0).astype(np.float32),
        judged=np.ones((m, SLOTS), np.bool_),
        context=np.full(m, -1),
        ranks=ranks,
        group=user,
        release=np.ones(m, np.int64),
        pool=np.full(m, POOL),
        eligible=np.full(m, ITEMS),
        epsilon=np.full(m, EPSILON),
    )


def candidate(world: World, kind: str, change: str, rng: np.random.Generator) -> tuple[Any, float]:
    """Return a candidate's scores, and its true click rate relative to the active policy's.

    `better` and `worse` are by 5.2 to 10 %; `equal` is moved away and back until it is within
    .2 %; `identical` is the active policy.
    """
    if kind == "identical":
        return world.scores, 0.0
    logits = np.log(world.attraction / (1.0 - world.attraction))
    error = logits - world.scores
    by_item = error.mean(axis=0) + 0.0 * error
    right = by_item if change == "by item" else error - by_item
    if change == "by item":
        fresh = rng.normal(size=ITEMS) + 0.0 * right
    else:
        left = rng.normal(size=(USERS, FACTORS))
        fresh = left @ rng.normal(size=(FACTORS, ITEMS)) / FACTORS**0.5
    base = value(world, world.scores)
    size = rng.uniform(0.054, 0.098)
    if kind == "better":
        wanted, direction, start = size, right, world.scores
    elif kind == "worse":
        wanted, direction, start = -size, fresh, world.scores
    else:
        start = world.scores + 0.3 * fresh
        wanted, direction = 0.0, right
    return _moved(world, start, direction, wanted, base)


def _moved(
    world: World, start: Any, direction: Any, wanted: float, base: float
) -> tuple[Any, float]:
    """Return start + λ direction whose relative true difference is as wanted, by bisection."""
    low, high = 0.0, 1.5
    reached = 0.0
    for _ in range(9):
        middle = (low + high) / 2
        reached = value(world, start + middle * direction) / base - 1.0
        if abs(reached - wanted) < 0.002:
            break
        beyond = reached > wanted if wanted >= 0 else reached < wanted
        low, high = (low, middle) if beyond else (middle, high)
    return start + middle * direction, float(reached)


def value(world: World, scores: Any) -> float:
    """Return a policy's clicks a decision."""
    order = _first(scores)
    attraction = np.take_along_axis(world.attraction, order, axis=1)
    table = marginals(SLOTS, POOL, EPSILON)
    return float(world.activity @ (attraction @ (world.examination @ table)))


def orders(world: World, scores: Any, decisions: Decisions) -> ope.Orders:
    """Return what candidate and active policy rank first at the decisions."""
    m = len(decisions)
    user = decisions.group
    order = _first(scores)
    rank_of = np.full((USERS, ITEMS), ITEMS, np.int64)
    np.put_along_axis(rank_of, order, np.arange(POOL)[None], axis=1)
    return ope.Orders(
        ranks=rank_of[user[:, None], decisions.items],
        items=order[user],
        logged_items=world.order[user],
        pool=np.full(m, POOL),
        epsilon=np.full((m, SLOTS), EPSILON),
    )


def _first(scores: Any) -> Any:
    head = np.argpartition(-scores, POOL, axis=1)[:, :POOL]
    order = np.argsort(-np.take_along_axis(scores, head, axis=1), axis=1, kind="stable")
    return np.take_along_axis(head, order, axis=1)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))
