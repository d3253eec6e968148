"""From the devices' logged decisions to a report: the verdict, the difference, and estimates.

Every decision that cannot be used is counted, by reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import MAX_SHEDDING_WEIGHT, Decisions
from sanderling_trainer.evaluation.ope.aggregation import SlateLog, take_rows
from sanderling_trainer.evaluation.ope.estimate import Estimate, estimate_all, invalid_decisions
from sanderling_trainer.evaluation.ope.examination import Examination, fit_examination
from sanderling_trainer.evaluation.ope.paired_difference import (
    FAMILIES,
    Orders,
    Slates,
    Sums,
    relative_difference,
    sums_by_unit,
)
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    max_weights,
    sequential_propensities,
    unsupported_mass,
)
from sanderling_trainer.evaluation.ope.release_gate import (
    HOLD,
    PRIMARY,
    GateResult,
    GateThresholds,
    gate,
    hold_limit,
    ship_bound,
)
from sanderling_trainer.evaluation.ope.reward_model import (
    RewardExamples,
    RewardModel,
    fit_reward_model,
)
from sanderling_trainer.evaluation.ope.sentence import sentence

Bools = NDArray[np.bool_]

INTERVALS_FOR_ANY_SIZE = ("bernstein", "betting")

USUAL_SHARE = 0.05
"""Slates are judged in as many slots as at least this share of them has."""


class ActivePolicy(NamedTuple):
    """The policy that took the logged decisions."""

    release: int

    pool: int
    """How many of its best items it explores among."""

    epsilon: float
    """Its exploration rate."""


class Judgement(NamedTuple):
    """What the verdict rests on."""

    slates: Slates
    orders: Orders
    model: RewardModel
    examination: Examination
    sums: Sums


def evaluate_candidate(
    decisions: Decisions,
    active: ActivePolicy,
    orders_at: Callable[[Decisions], Orders],
    n_items: int,
    rng: np.random.Generator,
    thresholds: GateThresholds | None = None,
) -> dict[str, Any]:
    """Return the verdict, the difference to the active policy, estimates and counts, for JSON.

    `orders_at` returns what candidate and active policy rank first at some decisions, in a catalog
    of `n_items`; it is called once, with those that can be used. A reward above 0 is a click.
    Conditional and marginal propensities are the logged ones; inclusion propensities are not on
    the wire and follow from rank, pool and ε. Slates are judged in as many slots as one in twenty
    has at least: longer ones are cut, and shorter ones count with the slots that they have. A
    decision counts for at most 64 of those that survived shedding, because a device's survival
    probability may be wrong or forged. Estimates that are refused stand apart, without numbers.
    `left_out` counts by reason what could not be used.
    """
    thresholds = thresholds or GateThresholds()
    given = len(decisions)
    decisions, slates, left_out = usable(decisions, active)
    units, of_what = decisions.resampling_units()
    counts = {
        "decisions": len(decisions),
        "units": len(np.unique(units)),
        "resampled": of_what,
        "left_out": left_out,
    }
    if not len(decisions):
        reason = f"expected at least one usable decision, found none of {given}"
        verdict = GateResult(HOLD, [reason], is_sound=False)
        line = sentence(verdict, None, active.release, counts)
        return {
            "sentence": line,
            "gate": {**verdict.as_dict(), "thresholds": asdict(thresholds)},
            "difference": None,
            "families": [],
            "estimates": [],
            "refused_estimates": [],
            **counts,
        }

    slates = slates._replace(log=slates.log._replace(group=units))
    judged = judge(slates, orders_at(decisions), n_items, rng)
    verdict = gate(judged.sums, len(decisions), thresholds)
    difference = _difference_row(judged, len(decisions), thresholds) if verdict.is_sound else None
    rows = _estimate_rows(judged, rng)
    return {
        "sentence": sentence(verdict, difference, active.release, counts),
        "gate": {**verdict.as_dict(), "thresholds": asdict(thresholds)},
        "difference": difference,
        "families": _family_rows(judged, len(decisions)),
        "examination": judged.examination.curve().tolist(),
        "estimates": [row for row in rows if not row["refused"]],
        "refused_estimates": [row for row in rows if row["refused"]],
        **counts,
    }


def judge(slates: Slates, orders: Orders, n_items: int, rng: np.random.Generator) -> Judgement:
    """Fit the models of clicks and examination to a log, and return the sums by `log.group`."""
    log = slates.log
    clicks = np.where(log.judged, log.reward, 0.0)
    examples = RewardExamples(clicks, log.judged, slates.items, log.group, log.pass_probability)
    model = fit_reward_model(examples, n_items, rng)

    explored = log.judged & (slates.ranks >= slates.lengths[:, None])
    examination = fit_examination(clicks, explored, 1.0 / log.pass_probability)
    unit = np.unique(log.group, return_inverse=True)[1]
    sums = sums_by_unit(slates, orders, model, examination, unit)
    return Judgement(slates, orders, model, examination, sums)


def usable(decisions: Decisions, active: ActivePolicy) -> tuple[Decisions, Slates, dict[str, int]]:
    """Return the usable decisions, their slates, and how many are left out for which first reason.

    The cheap checks come first: a forged pool or slate length must not decide how large the tables
    for all decisions are.
    """
    left_out: dict[str, int] = {}
    decisions = decisions.take(_keep(_foreign(decisions, active), len(decisions), left_out))
    decisions = decisions.truncate(_usual_length(decisions))
    decisions = decisions.take(_keep(_incomplete(decisions), len(decisions), left_out))

    slots = decisions.items.shape[1]
    epsilon = decisions.epsilons()
    rebuilt = sequential_propensities(
        decisions.ranks, slots, decisions.pool, epsilon, decisions.slots
    )
    missing = np.arange(slots) >= decisions.slots[:, None]
    decisions = replace(
        decisions,
        conditional=np.where(missing, 1.0, decisions.conditional),
        marginal=np.where(missing, 1.0, decisions.marginal),
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


def _usual_length(decisions: Decisions) -> int:
    """Return the longest length that at least one slate in twenty has; 1 for no decision."""
    counts = np.bincount(decisions.slots, minlength=2)
    return int(np.flatnonzero(counts >= USUAL_SHARE * max(len(decisions), 1)).max(initial=1))


def _keep(reasons: Iterable[tuple[str, Any]], m: int, left_out: dict[str, int]) -> Bools:
    """Return which of m decisions no reason excludes, and add the others to `left_out`."""
    keep = np.ones(m, np.bool_)
    for reason, excluded in reasons:
        left_out[reason] = int((keep & excluded).sum())
        keep &= ~excluded
    return keep


def _foreign(decisions: Decisions, active: ActivePolicy) -> Iterator[tuple[str, Any]]:
    yield "decided by another release", decisions.release != active.release

    yield "drawn with a quota for newcomers, which cannot be replayed here", decisions.newcomers > 0

    unknown = decisions.pool > np.maximum(active.pool, decisions.slots)
    unknown |= (decisions.epsilon != active.epsilon) & (decisions.epsilon != 0.0)
    yield "a pool or an ε that the release does not have", unknown

    # The candidate would have been asked for the same, and the log shows nothing of what it differs
    # in.
    yield "drawn without exploration", decisions.epsilon == 0.0

    yield "drawn under caps, which cannot be replayed here", decisions.capped
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


def _difference_row(
    judged: Judgement, decisions: int, thresholds: GateThresholds
) -> dict[str, Any]:
    """Return the primary difference, as a share of the active policy's clicks."""
    change = relative_difference(judged.sums, PRIMARY, decisions)
    units = len(judged.sums.clicks)
    examined = float(judged.sums.examined.sum())
    return {
        "weights": PRIMARY,
        "value": change.value,
        "low": change.low - 1.96 * change.error,
        "high": change.high + 1.96 * change.error,
        "standard_error": change.error,
        "ship_bound": ship_bound(change, units, thresholds),
        "hold_limit": hold_limit(change, thresholds),
        "ess": change.ess,
        "unsupported": float(judged.sums.unsupported_slots.sum()) / examined,
        "unsupported_low": change.low - change.value,
        "unsupported_high": change.high - change.value,
    }


def _family_rows(judged: Judgement, decisions: int) -> list[dict[str, Any]]:
    """Return the difference by each family of weights; none without a click."""
    if judged.sums.clicks.sum() == 0.0 or len(judged.sums.clicks) < 2:
        return []
    return [asdict(relative_difference(judged.sums, name, decisions)) for name in FAMILIES]


def _estimate_rows(judged: Judgement, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the click rates by all estimators, that of the log first."""
    slates, orders = judged.slates, judged.orders
    slots = slates.ranks.shape[1]
    in_pool = np.arange(orders.logged_items.shape[1]) < slates.pool[:, None]
    unsupported = unsupported_mass(
        orders.items,
        np.where(in_pool, orders.logged_items, -1),
        slots,
        orders.pool,
        orders.epsilon,
    )
    observed, *estimates = estimate_all(
        slates.log,
        sequential_propensities(orders.ranks, slots, orders.pool, orders.epsilon, slates.lengths),
        rng,
        predicted=judged.model.predict(
            slates.items,
            orders.items,
            orders.ranks,
            orders.pool,
            orders.epsilon,
        ),
        unsupported=float(np.average(unsupported, weights=1.0 / slates.log.pass_probability)),
        max_weights=max_weights(
            slots, (slates.pool, slates.epsilon), (orders.pool, orders.epsilon), slates.lengths
        ),
    )
    return [_row("logging", observed), *(_row("candidate", one) for one in estimates)]


def _row(policy: str, estimate: Estimate) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": policy, **vars(estimate)}
    del row["resampled"], row["jackknife"]
    for name in INTERVALS_FOR_ANY_SIZE:
        row[name] = row[name] and [row[name].low, row[name].high]
    if estimate.refused:
        row |= dict.fromkeys(("value", "low", "high", *INTERVALS_FOR_ANY_SIZE))
    return row
