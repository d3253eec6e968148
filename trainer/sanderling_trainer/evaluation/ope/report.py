"""From the devices' logged decisions to a report: the verdict, the difference, and estimates.

Every decision that cannot be used is counted, by reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.ope.estimate import Estimate, estimate_all
from sanderling_trainer.evaluation.ope.examination import Examination, fit_examination
from sanderling_trainer.evaluation.ope.paired_difference import (
    FAMILIES,
    Orders,
    Slates,
    Sums,
    sums_by_unit,
)
from sanderling_trainer.evaluation.ope.plausibility import ActivePolicy
from sanderling_trainer.evaluation.ope.propensities import (
    max_weights,
    sequential_propensities,
    unsupported_mass,
)
from sanderling_trainer.evaluation.ope.relative_difference import relative_difference
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
from sanderling_trainer.evaluation.ope.usable import usable

INTERVALS_FOR_ANY_SIZE = ("bernstein", "betting")


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
    has at least: longer ones are cut, and shorter ones count with the slots that they have. Slots
    that show newcomers by a quota are left out, as no policy decides them. A decision counts for at
    most 64 of those that survived shedding, because a device's survival probability may be wrong or
    forged. Estimates that are refused stand apart, without numbers.
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
