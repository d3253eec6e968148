"""Which logged decisions an engine with the release's settings can have made.

Learning and evaluation use the same answer: what the one does not believe must not teach the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import SCHEMES, Decisions
from sanderling_trainer.evaluation.ope.estimate import INVALID_PROPENSITY
from sanderling_trainer.evaluation.ope.propensities import (
    invalid_propensities,
    sequential_propensities,
)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RELATIVE_ERROR = 1e-6
LEAST_SOFTMAX = 1e-9
"""A slot that softmax shows with a lower probability is not seen in a log of this size."""


class ActivePolicy(NamedTuple):
    """The policy that took the logged decisions."""

    release: int

    pool: int
    """How many of its best items it explores among."""

    epsilon: float
    """Its exploration rate; a slate that was asked for as greedy has 0."""

    scheme: str = "sequential"
    """How it explores."""

    guarded: int = 0
    """How many leading slots never explore."""

    newcomers: float = 0.0
    """The share of explored slots that newcomers get where there are any."""

    earlier: tuple[ActivePolicy, ...] = ()
    """Policies before it that explored otherwise than the one before them, by `release`."""


class _Settings(NamedTuple):
    """How the policy of each decision explores, columns [m]."""

    pool: Ints
    epsilon: Floats
    scheme: Ints
    guarded: Ints
    newcomers: Floats


def plausible(decisions: Decisions, active: ActivePolicy) -> tuple[Decisions, dict[str, int]]:
    """Return the decisions that an engine can have made, and how many it cannot, by first reason.

    Under `sequential` without caps and diversity rank, pool and ε explain every propensity. Of the
    others, which cannot be rebuilt from a log, only what their formulas always give is required.
    Decisions of earlier releases are held to how those explored.
    """
    left_out: dict[str, int] = {}
    # A forged pool must not decide how large the tables below are.
    decisions = _without(decisions, _unknown_settings(decisions, active), left_out)
    decisions = _without(decisions, _impossible_propensities(decisions), left_out)
    return decisions, {reason: count for reason, count in left_out.items() if count}


def _without(
    decisions: Decisions, reasons: Iterator[tuple[str, Any]], left_out: dict[str, int]
) -> Decisions:
    keep = np.ones(len(decisions), np.bool_)
    for reason, excluded in reasons:
        left_out[reason] = int((keep & excluded).sum())
        keep &= ~excluded
    return decisions.take(keep)


def _unknown_settings(decisions: Decisions, active: ActivePolicy) -> Iterator[tuple[str, Any]]:
    policy = _settings_of(decisions, active)
    unguarded = (decisions.guarded != 0) & (decisions.guarded != policy.guarded)
    yield "guarded slots that the release does not have", unguarded

    unknown = decisions.pool > np.maximum(policy.pool, decisions.slots)
    # Softmax has no ε; what the manifest says of it is nevertheless logged.
    never_explores = (decisions.epsilon == 0.0) & (decisions.newcomer_rate == 0.0)
    unknown |= ~(_has_epsilon(decisions, policy) | never_explores)
    yield "a pool or an ε that the release does not have", unknown

    # A greedy slate is logged as `sequential` under every scheme.
    is_greedy = (decisions.scheme == SCHEMES.index("sequential")) & (decisions.epsilon == 0.0)
    other = decisions.scheme != policy.scheme
    yield "a scheme that the release does not have", other & ~is_greedy


def _settings_of(decisions: Decisions, active: ActivePolicy) -> _Settings:
    """Return the settings of the policy that took each decision.

    A release that nothing is known of is held to the one before it that is known, else to the one
    after.
    """
    policies = [*active.earlier, active]
    since = [policy.release for policy in policies]
    which = np.searchsorted(since, decisions.release, side="right") - 1
    rows = [
        (one.pool, one.epsilon, SCHEMES.index(one.scheme), one.guarded, one.newcomers)
        for one in policies
    ]
    return _Settings(*(np.array(row)[np.maximum(which, 0)] for row in zip(*rows, strict=True)))


def _has_epsilon(decisions: Decisions, policy: _Settings) -> Bools:
    """Return whose ε, and rate of newcomers where there were any, are the policy's [m]."""
    rate = policy.epsilon * policy.newcomers
    # What a quota leaves to the scheme, see `sanderling.exploration.newcomers`.
    others = (policy.epsilon - rate) / np.where(rate < 1.0, 1.0 - rate, np.inf)
    others = np.where(rate < 1.0, others, policy.epsilon)
    with_quota = (decisions.newcomers > 0) & (rate > 0.0)
    expected = np.where(with_quota, others, policy.epsilon)
    same_rate = _close(decisions.newcomer_rate, np.where(with_quota, rate, 0.0))
    return _close(decisions.epsilon, expected) & same_rate


def _impossible_propensities(decisions: Decisions) -> Iterator[tuple[str, Any]]:
    # Those of pinned slots are 1, or the event is not taken.
    decisions = decisions.without_pinned_slots()
    is_slot = np.arange(decisions.items.shape[1]) < decisions.slots[:, None]
    invalid = invalid_propensities(decisions.conditional) | invalid_propensities(decisions.marginal)
    yield INVALID_PROPENSITY, np.any(invalid & is_slot, axis=1)

    possible = np.ones(decisions.items.shape, np.bool_)
    quota = decisions.newcomer_rate > 0.0
    # A slate of pins alone may have no pool.
    is_drawn = decisions.slots > 0
    sequential = _rows(decisions, "sequential") & ~quota & is_drawn
    unknown_order = decisions.capped | decisions.diverse
    for rows, check in (
        (quota, _as_with_newcomers),
        (sequential & ~unknown_order, _as_rebuilt),
        (sequential & unknown_order, _as_sequential_of_any_order),
        (_rows(decisions, "mixture") & ~quota, _as_mixture),
        (_rows(decisions, "softmax") & ~quota, _as_softmax),
    ):
        if rows.any():
            possible[rows] = check(decisions.take(rows))
    impossible = np.any(is_slot & ~possible, axis=1)
    yield "propensities that rank, pool and ε do not explain", impossible


def _rows(decisions: Decisions, scheme: str) -> Bools:
    return decisions.scheme == SCHEMES.index(scheme)


def _as_rebuilt(decisions: Decisions) -> Bools:
    """Return in which slots [m, K] the propensities are those of scheme `sequential`."""
    slots = decisions.items.shape[1]
    epsilons = decisions.epsilons()
    rebuilt = sequential_propensities(decisions.ranks, slots, decisions.pool, epsilons)
    same = _close(decisions.conditional, rebuilt.conditional)
    return same & _close(decisions.marginal, rebuilt.marginal)


def _as_sequential_of_any_order(decisions: Decisions) -> Bools:
    """Return in which slots the item can be the best one left or another, where caps or diversity
    hide which."""
    epsilon = decisions.epsilons()
    items_left = np.maximum(decisions.pool[:, None] - np.arange(epsilon.shape[1]), 1)
    other = epsilon / items_left
    best = other + 1.0 - epsilon
    possible = _close(decisions.conditional, best)
    return possible | (_close(decisions.conditional, other) & (epsilon > 0.0))


def _as_mixture(decisions: Decisions) -> Bools:
    """Return in which slots the marginals are those of scheme `mixture`."""
    epsilon = decisions.epsilons()
    explored_from = np.maximum(decisions.pool - decisions.guarded, 1)[:, None]
    other = epsilon / explored_from
    best = other + (1.0 - epsilon)
    is_greedy = decisions.ranks == np.arange(epsilon.shape[1])
    possible = _close(decisions.marginal, np.where(is_greedy, best, other))

    # The greedy slate with diversity has any ranks.
    is_either = _close(decisions.marginal, best) | _close(decisions.marginal, other)
    return np.where(decisions.diverse[:, None], is_either, possible)


def _as_with_newcomers(decisions: Decisions) -> Bools:
    """Return in which slots newcomers have the quota's propensities, and other items those that
    what is left of the slate allows.
    """
    rate = decisions.newcomer_rate[:, None]
    above: Ints = np.cumsum(decisions.newcomer, axis=1) - decisions.newcomer
    total = decisions.newcomers[:, None]
    each = rate / np.maximum(total - above, 1)
    slot = np.arange(decisions.items.shape[1])
    marginal = decisions.marginal * total / np.maximum(rate, np.finfo(float).tiny)
    is_bounded = marginal <= 1.0 + RELATIVE_ERROR
    is_bounded &= marginal >= (1.0 - rate) ** slot * (1.0 - RELATIVE_ERROR)
    # Softmax and diverse slates have no marginals; the conditional ones stand in for them.
    has_none = _rows(decisions, "softmax") | decisions.diverse
    is_bounded |= has_none[:, None] & (decisions.marginal == decisions.conditional)
    newcomer = (above < total) & _close(decisions.conditional, each) & is_bounded

    others = np.where(slot < decisions.guarded[:, None], 1.0, 1.0 - rate * (above < total))
    epsilon = decisions.epsilons()
    other = others * epsilon / np.maximum(decisions.pool[:, None] - slot + above, 1)
    best = other + others * (1.0 - epsilon)
    possible = _close(decisions.conditional, best)
    possible |= _close(decisions.conditional, other) & (epsilon > 0.0)
    is_sequential = _rows(decisions, "sequential")[:, None]
    possible = np.where(is_sequential, possible, decisions.conditional >= LEAST_SOFTMAX)
    return np.where(decisions.newcomer, newcomer, possible)


def _as_softmax(decisions: Decisions) -> Bools:
    """Return which slots a softmax of unknown scores can have shown."""
    guarded = np.arange(decisions.items.shape[1]) < decisions.guarded[:, None]
    return np.where(guarded, decisions.conditional == 1.0, decisions.conditional >= LEAST_SOFTMAX)


def _close(logged: NDArray[np.float64], expected: NDArray[np.float64]) -> Bools:
    return np.isclose(logged, expected, rtol=RELATIVE_ERROR, atol=0.0)
