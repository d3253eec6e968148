"""Simulated logs whose true click rate follows by enumeration: 6 items, 3 slots, 4 click models."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.estimation.loops import joint, slates
from sanderling_trainer.evaluation import ope

POOL = 6
SLOTS = 3
LOGGING = 0.7
"""ε of the logging policy."""

TARGET = 0.5
"""ε of the target policy."""

ORDER = np.array([1, 0, 3, 4, 5, 2])
"""The target's rank of the item of each logged rank."""

ATTRACTION = 0.8 - 0.12 * np.arange(POOL)
EXAMINATION = np.array([1.0, 0.5, 0.2])

CLICK_MODELS = ("independent", "item and position", "cascade", "whole slate")


class SimulatedLog(NamedTuple):
    """A log of m slates, the items shown, and the target's propensities and ranks of them."""

    log: Any
    items: Any
    target: Any
    ranks: Any


def click_probabilities(clicks: str, items: Any) -> Any:
    """Return the probability of a click in each slot of slates [m, K] under a click model."""
    attraction = ATTRACTION[items]
    if clicks == "independent":
        return attraction
    if clicks == "item and position":
        return attraction * EXAMINATION
    if clicks == "cascade":
        # The user goes down the slate and stops at the first click.
        passed = np.cumprod(1.0 - attraction, axis=1)
        return attraction * np.concatenate([np.ones((len(items), 1)), passed[:, :-1]], axis=1)
    if clicks == "whole slate":
        # A better item just below takes the click away.
        below = np.concatenate([attraction[:, 1:], np.zeros((len(items), 1))], axis=1)
        return np.where(below > attraction, 0.1 * attraction, attraction)
    raise ValueError(f"expected a click model of {CLICK_MODELS}, found {clicks!r}")


def true_value(clicks: str, order: Any = ORDER, epsilon: float = TARGET) -> float:
    """Return the target's click rate per slot by enumerating all slates."""
    every = np.array(list(slates(SLOTS, POOL)))
    target_ranks = np.asarray(order)[every].tolist()
    probability = np.array([joint(tuple(ranks), POOL, epsilon) for ranks in target_ranks])
    return float((probability[:, None] * click_probabilities(clicks, every)).sum() / SLOTS)


def draw_ranks(m: int, slots: int, pool: int, epsilon: float, rng: np.random.Generator) -> Any:
    """Draw m slates under scheme `sequential`, all at once: int64 [m, slots]."""
    row = np.arange(m)
    ranks = np.empty((m, slots), np.int64)
    left = np.tile(np.arange(pool), (m, 1))
    for slot in range(slots):
        explores = rng.random(m) < epsilon
        random_pick = (rng.random(m) * (pool - slot)).astype(np.int64)
        pick = np.where(explores, random_pick, 0)
        ranks[:, slot] = left[row, pick]
        keep = np.arange(pool - slot)[None, :] != pick[:, None]
        left = left[keep].reshape(m, pool - slot - 1)
    return ranks


def draw_log(
    clicks: str,
    m: int,
    seed: int,
    *,
    order: Any = ORDER,
    epsilon: float = TARGET,
    group: Any = None,
    judged: float = 1.0,
) -> SimulatedLog:
    """Draw m ε-greedy slates and their clicks; a slot is judged with probability `judged`.

    Each decision is a group of its own unless `group` int64 [m] is given.
    """
    rng = np.random.default_rng(seed)
    items = draw_ranks(m, SLOTS, POOL, LOGGING, rng)
    if clicks == "cascade":
        attracts = rng.random(items.shape) < ATTRACTION[items]
        reward = attracts & (np.cumsum(attracts, axis=1) == 1)
    else:
        reward = rng.random(items.shape) < click_probabilities(clicks, items)
    ranks = np.asarray(order)[items]
    log = ope.SlateLog(
        reward=reward.astype(np.float64),
        judged=rng.random(items.shape) < judged,
        group=np.arange(m) if group is None else group,
        logged=ope.sequential_propensities(items, SLOTS, POOL, LOGGING),
        pass_probability=np.ones(m),
    )
    return SimulatedLog(log, items, ope.sequential_propensities(ranks, SLOTS, POOL, epsilon), ranks)


def slates_of(
    sample: SimulatedLog, *, order: Any = ORDER, epsilon: float = TARGET
) -> tuple[ope.Slates, ope.Orders]:
    """Return the log with what it was drawn from, and what target and log rank first."""
    m, slots = sample.items.shape
    slates = ope.Slates(
        log=sample.log,
        items=sample.items,
        ranks=sample.items,
        pool=np.full(m, POOL),
        epsilon=np.full((m, slots), LOGGING),
        lengths=np.full(m, slots),
    )
    orders = ope.Orders(
        ranks=sample.ranks,
        items=np.tile(np.argsort(order), (m, 1)),
        logged_items=np.tile(np.arange(POOL), (m, 1)),
        pool=np.full(m, POOL),
        epsilon=np.full((m, slots), epsilon),
    )
    return slates, orders


def reward_examples(sample: SimulatedLog) -> ope.RewardExamples:
    """Return what a reward model is fitted to."""
    log = sample.log
    return ope.RewardExamples(log.reward, log.judged, sample.items, log.group, log.pass_probability)


def predict(
    sample: SimulatedLog, rng: np.random.Generator, *, order: Any = ORDER, epsilon: float = TARGET
) -> ope.Predictions:
    """Fit the cross-fitted model to a log and return its predictions for the same log."""
    m = len(sample.items)
    model = ope.fit_reward_model(reward_examples(sample), POOL, rng)
    pool_items = np.tile(np.argsort(order), (m, 1))
    return model.predict(sample.items, pool_items, sample.ranks, np.full(m, POOL), epsilon)


def estimates_of(sample: SimulatedLog, seed: int = 0, **options: Any) -> dict[str, ope.Estimate]:
    """Return all estimates by name; `options` go to `ope.estimate_all`.

    The reward model is fitted to the log itself unless `predicted` is among them.
    """
    rng = np.random.default_rng(seed)
    options.setdefault("predicted", predict(sample, rng))
    estimates = ope.estimate_all(sample.log, sample.target, rng, **options)
    return {estimate.estimator: estimate for estimate in estimates}
