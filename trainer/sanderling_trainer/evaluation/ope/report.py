"""From the devices' logged decisions to a report: estimates, difference and the gate's verdict.

Every decision that cannot be used is counted, by reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import MAX_SHEDDING_WEIGHT, SCHEMES, Decisions
from sanderling_trainer.evaluation.ope.aggregation import SlateLog, take_rows
from sanderling_trainer.evaluation.ope.estimate import (
    Estimate,
    difference,
    estimate_all,
    invalid_decisions,
)
from sanderling_trainer.evaluation.ope.plausibility import ActivePolicy, plausible
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    max_weights,
    sequential_propensities,
)
from sanderling_trainer.evaluation.ope.release_gate import PRIMARY, GateResult, GateThresholds, gate
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Bools = NDArray[np.bool_]

INTERVALS_FOR_ANY_SIZE = ("bernstein", "betting")


class Candidate(NamedTuple):
    """What the policy to be evaluated would have done at m decisions."""

    propensities: Propensities
    """Of what was shown."""

    predicted: Predictions
    """A reward model's clicks."""

    unsupported: NDArray[np.float64]
    """The mass on items that the log never shows, float64 [m]."""

    pool: NDArray[np.int64]
    """Its pool at each decision, int64 [m]."""

    epsilon: float | NDArray[np.float64]
    """Its exploration rate, one number or [1, K]."""


def evaluate_candidate(
    decisions: Decisions,
    active: ActivePolicy,
    candidate_at: Callable[[Decisions], Candidate],
    rng: np.random.Generator,
    thresholds: GateThresholds | None = None,
) -> dict[str, Any]:
    """Return estimates, the difference to the active policy, the verdict and counts, for JSON.

    `candidate_at` returns what the candidate would have done at some decisions; it is called once,
    with those that can be used. A reward above 0 is a click. Conditional and marginal propensities
    are the logged ones; inclusion propensities are not on the wire and follow from rank, pool and
    ε. Slates are evaluated in as many slots as most have: shorter ones are left out, and longer
    ones are cut. A decision counts for at most 64 of those that survived shedding, because a
    device's survival probability may be wrong or forged. The numbers of a refused estimate are
    None. `left_out` counts by reason what could not be used.
    """
    thresholds = thresholds or GateThresholds()
    given = len(decisions)
    decisions, log, left_out = _usable(decisions, active)
    counts = {"decisions": len(decisions), "left_out": left_out}
    if not len(decisions):
        verdict = GateResult(
            False, [f"expected at least one usable decision, found none of {given}"]
        )
        return {"estimates": [], "difference": None, "gate": verdict.as_dict(), **counts}

    candidate = candidate_at(decisions)
    weight_bounds = max_weights(
        decisions.items.shape[1],
        (decisions.pool, decisions.epsilons()),
        (candidate.pool, candidate.epsilon),
        len(decisions),
    )
    observed, *estimates = estimate_all(
        log,
        candidate.propensities,
        rng,
        predicted=candidate.predicted,
        unsupported=float(np.average(candidate.unsupported, weights=1.0 / log.pass_probability)),
        max_weights=weight_bounds,
    )
    primary = next(estimate for estimate in estimates if estimate.estimator == PRIMARY)
    verdict = gate([observed, *estimates], thresholds)
    rows = [_row("logging", observed), *(_row("candidate", one) for one in estimates)]
    return {
        "estimates": rows,
        "difference": _difference_row(primary, observed),
        "gate": {**verdict.as_dict(), "thresholds": asdict(thresholds)},
        **counts,
    }


def _usable(
    decisions: Decisions, active: ActivePolicy
) -> tuple[Decisions, SlateLog, dict[str, int]]:
    """Return the usable decisions, their log, and how many are left out for which first reason.

    The cheap checks come first: a forged slate length must not decide how large the tables for all
    decisions are.
    """
    decisions, left_out = plausible(decisions, active)
    decisions = decisions.take(_keep(_foreign(decisions, active), len(decisions), left_out))
    usual_length = int(np.bincount(decisions.slots, minlength=2).argmax())
    decisions = decisions.truncate(usual_length)
    decisions = decisions.take(_keep(_incomplete(decisions), len(decisions), left_out))

    rebuilt = sequential_propensities(
        decisions.ranks, decisions.items.shape[1], decisions.pool, decisions.epsilons()
    )
    log = _slate_log(decisions, rebuilt)
    keep = _keep(invalid_decisions(log).items(), len(decisions), left_out)

    pass_probability = np.maximum(decisions.pass_probability, 1.0 / MAX_SHEDDING_WEIGHT)
    decisions = replace(decisions, pass_probability=pass_probability).take(keep)
    log = take_rows(log._replace(pass_probability=pass_probability), keep)
    return decisions, log, {reason: count for reason, count in left_out.items() if count}


def _keep(reasons: Iterable[tuple[str, Any]], m: int, left_out: dict[str, int]) -> Bools:
    """Return which of m decisions no reason excludes, and add the others to `left_out`."""
    keep = np.ones(m, np.bool_)
    for reason, excluded in reasons:
        left_out[reason] = left_out.get(reason, 0) + int((keep & excluded).sum())
        keep &= ~excluded
    return keep


def _foreign(decisions: Decisions, active: ActivePolicy) -> Iterator[tuple[str, Any]]:
    yield "decided by another release", decisions.release != active.release
    yield "drawn with a quota for newcomers, which cannot be replayed here", decisions.newcomers > 0
    other_scheme = decisions.scheme != SCHEMES.index("sequential")
    yield "drawn by another scheme than sequential, which cannot be replayed here", other_scheme
    yield "drawn under caps, which cannot be replayed here", decisions.capped
    yield "rewards with randomized response", decisions.noisy


def _incomplete(decisions: Decisions) -> Iterator[tuple[str, Any]]:
    empty = (decisions.items < 0).any(axis=1)
    yield "a short slate, or an item that the lab does not know", empty
    yield "no judged slot", ~decisions.judged.any(axis=1)


def _slate_log(decisions: Decisions, rebuilt: Propensities) -> SlateLog:
    return SlateLog(
        reward=np.where(np.isfinite(decisions.reward), decisions.reward > 0, np.nan),
        judged=decisions.judged,
        group=decisions.group,
        logged=Propensities(decisions.conditional, decisions.marginal, rebuilt.inclusion),
        pass_probability=decisions.pass_probability,
    )


def _difference_row(primary: Estimate, observed: Estimate) -> dict[str, Any]:
    row = {"estimator": primary.estimator, **difference(primary, observed).as_dict()}
    row["refused"] = primary.refused
    return row | (dict.fromkeys(("value", "low", "high")) if primary.refused else {})


def _row(policy: str, estimate: Estimate) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": policy, **vars(estimate)}
    del row["resampled"], row["jackknife"]
    for name in INTERVALS_FOR_ANY_SIZE:
        row[name] = row[name] and [row[name].low, row[name].high]
    if estimate.refused:
        row |= dict.fromkeys(("value", "low", "high", *INTERVALS_FOR_ANY_SIZE))
    return row
