"""Which logged decisions can be judged, as slates that scheme `sequential` explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import MAX_SHEDDING_WEIGHT, SCHEMES, Decisions
from sanderling_trainer.evaluation.ope.aggregation import SlateLog, take_rows
from sanderling_trainer.evaluation.ope.estimate import invalid_decisions
from sanderling_trainer.evaluation.ope.paired_difference import Slates
from sanderling_trainer.evaluation.ope.plausibility import ActivePolicy, plausible
from sanderling_trainer.evaluation.ope.propensities import Propensities, sequential_propensities

Bools = NDArray[np.bool_]

USUAL_SHARE = 0.05
"""Slates are judged in as many slots as at least this share of them has."""


def usable(decisions: Decisions, active: ActivePolicy) -> tuple[Decisions, Slates, dict[str, int]]:
    """Return the usable decisions, their slates, and how many are left out for which first reason.

    The cheap checks come first: a forged slate length must not decide how large the tables for all
    decisions are.
    """
    decisions, left_out = plausible(decisions, active)
    decisions = decisions.take(_keep(_foreign(decisions, active), len(decisions), left_out))
    decisions = regular_slots(decisions)
    decisions = decisions.truncate(_usual_length(decisions))
    decisions = decisions.take(_keep(_incomplete(decisions), len(decisions), left_out))

    slots = decisions.items.shape[1]
    epsilon = decisions.epsilons()
    rebuilt = sequential_propensities(
        decisions.ranks, slots, decisions.pool, epsilon, decisions.slots
    )
    missing = np.arange(slots) >= decisions.slots[:, None]
    has_newcomers = (decisions.newcomers > 0)[:, None]
    marginal = np.where(has_newcomers, rebuilt.marginal, decisions.marginal)
    decisions = replace(
        decisions,
        conditional=np.where(missing, 1.0, decisions.conditional),
        marginal=np.where(missing, 1.0, marginal),
        judged=decisions.judged & ~missing,
    )
    log = _slate_log(decisions, rebuilt)
    keep = _keep(_inconsistent(decisions, log, rebuilt), len(decisions), left_out)

    pass_probability = np.maximum(decisions.pass_probability, 1.0 / MAX_SHEDDING_WEIGHT)
    decisions = replace(decisions, pass_probability=pass_probability).take(keep)
    slates = Slates(
        log=take_rows(log._replace(pass_probability=pass_probability), keep),
        items=decisions.items,
        ranks=decisions.ranks,
        pool=decisions.pool,
        epsilon=epsilon[keep],
        lengths=decisions.slots,
    )
    return decisions, slates, {reason: count for reason, count in left_out.items() if count}


def regular_epsilon(epsilon: Any, rate: Any) -> Any:
    """Return ε' = (ε - η) / (1 - η), with which slots explore that no quota gave to newcomers.

    η is `rate`, a slot's probability of a newcomer (`sanderling.exploration.newcomers`).
    """
    others = np.where(np.asarray(rate) < 1.0, 1.0 - np.asarray(rate), 1.0)
    regular = (epsilon - np.asarray(rate)) / others
    return np.maximum(np.where(np.asarray(rate) < 1.0, regular, epsilon), 0.0)


def regular_slots(decisions: Decisions) -> Decisions:
    """Return the slates without the slots that the app pinned and those that newcomers got, with
    the propensities given those.

    What is left is a plain slate of the scheme, with fewer slots. Which slots these are depends on
    no policy.
    """
    decisions = decisions.without_pinned_slots()
    if not decisions.newcomer.any() and not (decisions.newcomers > 0).any():
        return decisions
    slot = np.arange(decisions.items.shape[1])
    newcomer = decisions.newcomer & (slot < decisions.slots[:, None])
    above: NDArray[np.int64] = np.cumsum(newcomer, axis=1) - newcomer
    could = (above < decisions.newcomers[:, None]) & (slot >= decisions.guarded[:, None])
    passed = np.where(could, 1.0 - decisions.newcomer_rate[:, None], 1.0)
    conditional = decisions.conditional / np.maximum(passed, 1e-300)
    return replace(decisions, conditional=conditional).without_slots(newcomer)


def _usual_length(decisions: Decisions) -> int:
    """Return the longest length that at least one slate in twenty has; 1 for no decision."""
    counts = np.bincount(decisions.slots, minlength=2)
    return int(np.flatnonzero(counts >= USUAL_SHARE * max(len(decisions), 1)).max(initial=1))


def _keep(reasons: Iterable[tuple[str, Any]], m: int, left_out: dict[str, int]) -> Bools:
    """Return which of m decisions no reason excludes, and add the others to `left_out`."""
    keep = np.ones(m, np.bool_)
    for reason, excluded in reasons:
        left_out[reason] = left_out.get(reason, 0) + int((keep & excluded).sum())
        keep &= ~excluded
    return keep


def _foreign(decisions: Decisions, active: ActivePolicy) -> Iterator[tuple[str, Any]]:
    yield "decided by another release", decisions.release != active.release

    other_scheme = decisions.scheme != SCHEMES.index("sequential")
    yield "drawn by another scheme than sequential, which cannot be replayed here", other_scheme

    # The candidate would have been asked for the same, and the log shows nothing of what it differs
    # in.
    yield "drawn without exploration", decisions.epsilon == 0.0

    yield "drawn under caps, which cannot be replayed here", decisions.capped
    yield "decided by an arm of an experiment", decisions.in_arm
    # The lab's float vectors would choose other items than the device's int8 rows.
    yield "drawn with diversity, which cannot be replayed here", decisions.diverse
    unknown_boosts = decisions.boosted & (decisions.pool_items == b"")
    yield "drawn under boosts without naming its pool", unknown_boosts
    yield "rewards with randomized response", decisions.noisy


def _incomplete(decisions: Decisions) -> Iterator[tuple[str, Any]]:
    in_slate = np.arange(decisions.items.shape[1]) < decisions.slots[:, None]
    yield "an item that the lab does not know", (in_slate & (decisions.items < 0)).any(axis=1)
    yield "no judged slot", ~decisions.judged.any(axis=1)


def _inconsistent(
    decisions: Decisions, log: SlateLog, rebuilt: Propensities
) -> Iterator[tuple[str, Any]]:
    yield from invalid_decisions(log).items()

    same = _all_close(rebuilt.conditional, decisions.conditional)
    same &= _all_close(rebuilt.marginal, decisions.marginal)
    yield "propensities that rank, pool and ε do not explain", ~same


def _all_close(rebuilt: NDArray[np.float64], logged: NDArray[np.float64]) -> Bools:
    return np.asarray(np.isclose(rebuilt, logged, rtol=1e-6, atol=0.0).all(axis=1))


def _slate_log(decisions: Decisions, rebuilt: Propensities) -> SlateLog:
    return SlateLog(
        reward=np.where(np.isfinite(decisions.reward), decisions.reward > 0, np.nan),
        judged=decisions.judged,
        group=decisions.group,
        logged=Propensities(decisions.conditional, decisions.marginal, rebuilt.inclusion),
        pass_probability=decisions.pass_probability,
    )
