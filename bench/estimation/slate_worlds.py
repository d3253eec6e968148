"""Worlds of slates whose truth is known by enumeration: six items, three slots, four ways in which users click."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.estimation.loops import joint, slates
from sanderling_trainer.evaluation import ope

POOL, SLOTS = 6, 3
LOGGING, TARGET = 0.7, 0.5
ORDER = np.array([1, 0, 3, 4, 5, 2])  # the target's rank of the item of each logged rank
LIKED = 0.8 - 0.12 * np.arange(POOL)
FALL = np.array([1.0, 0.5, 0.2])


class World(NamedTuple):
    """A log, the items shown, and the target's propensities and ranks of them."""

    log: Any
    items: Any
    target: Any
    ranks: Any


def chances(clicks: str, items: Any) -> Any:
    """Return the chance of a click in each slot of slates [m, K], by the way in which users click."""
    liked = LIKED[items]
    if clicks == "independent":
        return liked
    if clicks == "item and position":
        return liked * FALL
    if clicks == "cascade":  # goes down the slate and stops at the first click
        passed = np.cumprod(1.0 - liked, axis=1)
        return liked * np.concatenate([np.ones((len(items), 1)), passed[:, :-1]], axis=1)
    if clicks == "whole slate":  # a better item just below takes the click away
        below = np.concatenate([liked[:, 1:], np.zeros((len(items), 1))], axis=1)
        return np.where(below > liked, 0.1 * liked, liked)
    raise ValueError(clicks)


CLICKS = ("independent", "item and position", "cascade", "whole slate")


def truth(clicks: str, order: Any = ORDER, epsilon: float = TARGET) -> float:
    """Return the target's click rate per slot by enumerating all slates."""
    every = np.array(list(slates(SLOTS, POOL)))
    chance = np.array(
        [joint(tuple(one), POOL, epsilon) for one in np.asarray(order)[every].tolist()]
    )
    return float((chance[:, None] * chances(clicks, every)).sum() / SLOTS)


def draw_ranks(m: int, slots: int, pool: int, epsilon: float, rng: np.random.Generator) -> Any:
    """Draw m slates by scheme `sequential`, all at once: int64 [m, slots]."""
    ranks, left, row = (
        np.empty((m, slots), np.int64),
        np.tile(np.arange(pool), (m, 1)),
        np.arange(m),
    )
    for slot in range(slots):
        pick = np.where(
            rng.random(m) < epsilon, (rng.random(m) * (pool - slot)).astype(np.int64), 0
        )
        ranks[:, slot] = left[row, pick]
        keep = np.arange(pool - slot)[None, :] != pick[:, None]
        left = left[keep].reshape(m, pool - slot - 1)
    return ranks


def draw(
    clicks: str,
    m: int,
    seed: int,
    *,
    order: Any = ORDER,
    epsilon: float = TARGET,
    group: Any = None,
    judged: float = 1.0,
) -> World:
    """Draw m slates of ε-greedy over ranks, and clicks; each decision is a group of its own unless told otherwise."""
    rng = np.random.default_rng(seed)
    items = draw_ranks(m, SLOTS, POOL, LOGGING, rng)
    if clicks == "cascade":
        wanted = rng.random(items.shape) < LIKED[items]
        reward = wanted & (np.cumsum(wanted, axis=1) == 1)
    else:
        reward = rng.random(items.shape) < chances(clicks, items)
    ranks = np.asarray(order)[items]
    log = ope.Slates(
        reward=reward.astype(np.float64),
        judged=rng.random(items.shape) < judged,
        group=np.arange(m) if group is None else group,
        logged=ope.sequential_propensities(items, SLOTS, POOL, LOGGING),
        survived=np.ones(m),
    )
    return World(log, items, ope.sequential_propensities(ranks, SLOTS, POOL, epsilon), ranks)


def predict(
    world: World, rng: np.random.Generator, *, order: Any = ORDER, epsilon: float = TARGET
) -> ope.Predictions:
    """Fit the cross-fitted model on a world's own log and predict what the estimators need."""
    log, m = world.log, len(world.items)
    model = ope.fit(log.reward, log.judged, world.items, log.group, POOL, log.survived, rng)
    pool_items = np.tile(np.argsort(order), (m, 1))
    return model.predictions(world.items, pool_items, world.ranks, np.full(m, POOL), epsilon)


def judge(world: World, seed: int = 0, **given: Any) -> dict[str, ope.Estimate]:
    """Return all estimates by name, the model fitted on the log itself unless predictions are given."""
    rng = np.random.default_rng(seed)
    given.setdefault("predicted", predict(world, rng))
    return {one.estimator: one for one in ope.estimates(world.log, world.target, rng, **given)}
