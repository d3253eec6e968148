"""From the devices' logged decisions to estimates, their difference to the serving policy, and the gate's verdict.

Refuses to drop a decision without counting it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import MAX_SHEDDING_WEIGHT, Decisions
from sanderling_trainer.evaluation.ope.aggregation import Slates, cut
from sanderling_trainer.evaluation.ope.estimate import Estimate, difference, estimates, faulty
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    largest_weights,
    sequential_propensities,
)
from sanderling_trainer.evaluation.ope.release_gate import PRIMARY, Thresholds, Verdict, gate
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Bools = NDArray[np.bool_]

SAID = ("value", "low", "high", "bernstein", "betting")


class ServingPolicy(NamedTuple):
    """What serves: its release, the pool from which it explores, and its ε; a greedy slate has ε 0."""

    release: int
    pool: int
    epsilon: float


class Candidate(NamedTuple):
    """What the policy to be judged would have done at m decisions: its propensities of what was shown, a model's
    clicks, its mass float64 [m] on items that the log never shows, its pool int64 [m] and its ε, one or [1, K]."""

    propensities: Propensities
    predicted: Predictions
    unsupported: NDArray[np.float64]
    pool: NDArray[np.int64]
    epsilon: float | NDArray[np.float64]


def report(
    decisions: Decisions,
    serving: ServingPolicy,
    would: Callable[[Decisions], Candidate],
    rng: np.random.Generator,
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:
    """Return estimates, the difference by `PRIMARY` to the serving release, the gate's verdict and counts, as plain
    data.

    `would` says what the candidate would have done at decisions: at those that can be judged, for it is asked of no
    others. A reward above 0 is a click. Conditional and marginal propensities are the ones that devices logged;
    inclusion is not on the wire and follows from rank, pool and ε. Slates are judged in as many slots as most have:
    shorter ones cannot be, and of longer ones the first slots are a slate of their own. None counts for more than 64
    of those that survived shedding: a device may be wrong about it, or mean ill. What a refused estimate says
    is None. Decisions that cannot be used, those of other releases among them, are counted by reason in `left_out`.
    """
    thresholds, given = thresholds or Thresholds(), len(decisions)
    decisions, log, left_out = _judgeable(decisions, serving)
    counts = {"decisions": len(decisions), "left_out": left_out}
    if not len(decisions):
        verdict = Verdict(False, [f"expected at least one usable decision, found none of {given}"])
        return {"estimates": [], "difference": None, "gate": verdict.plain(), **counts}
    candidate = would(decisions)
    observed, *found = estimates(
        log,
        candidate.propensities,
        rng,
        predicted=candidate.predicted,
        unsupported=float(np.average(candidate.unsupported, weights=1.0 / log.survived)),
        largest=largest_weights(
            decisions.items.shape[1],
            (decisions.pool, decisions.epsilons()),
            (candidate.pool, candidate.epsilon),
            len(decisions),
        ),
    )
    primary = next(estimate for estimate in found if estimate.estimator == PRIMARY)
    change = {
        "estimator": PRIMARY,
        **difference(primary, observed).plain(),
        "refused": primary.refused,
    }
    return {
        "estimates": [
            _plain("logging", observed),
            *(_plain("candidate", estimate) for estimate in found),
        ],
        "difference": change | (dict.fromkeys(SAID[:3]) if primary.refused else {}),
        "gate": {**gate([observed, *found], thresholds).plain(), "thresholds": asdict(thresholds)},
        **counts,
    }


def _judgeable(
    decisions: Decisions, serving: ServingPolicy
) -> tuple[Decisions, Slates, dict[str, int]]:
    """Return the decisions that can be judged, their log, and how many cannot, each by the first reason that applies.

    What is cheap to see goes first, so that no odd decision decides how large a table of all is.
    """
    left_out: dict[str, int] = {}
    decisions = decisions.take(_fit(_foreign(decisions, serving), len(decisions), left_out))
    decisions = decisions.truncate(int(np.bincount(decisions.slots, minlength=2).argmax()))
    decisions = decisions.take(_fit(_unfit(decisions), len(decisions), left_out))
    rebuilt = sequential_propensities(
        decisions.ranks, decisions.items.shape[1], decisions.pool, decisions.epsilons()
    )
    log = _slates(decisions, rebuilt)
    fit = _fit(_unexplained(decisions, log, rebuilt), len(decisions), left_out)
    survived = np.maximum(decisions.survived, 1.0 / MAX_SHEDDING_WEIGHT)
    decisions, log = (
        replace(decisions, survived=survived).take(fit),
        cut(log._replace(survived=survived), fit),
    )
    return decisions, log, {reason: count for reason, count in left_out.items() if count}


def _fit(reasons: Iterable[tuple[str, Any]], m: int, left_out: dict[str, int]) -> Bools:
    """Return which of m decisions no reason speaks against; count the others."""
    fit = np.ones(m, np.bool_)
    for reason, where in reasons:
        left_out[reason] = int((fit & where).sum())
        fit &= ~where
    return fit


def _foreign(decisions: Decisions, serving: ServingPolicy) -> Iterator[tuple[str, Any]]:
    yield "decided by another release", decisions.release != serving.release
    odd = decisions.pool > np.maximum(serving.pool, decisions.slots)
    odd |= (decisions.epsilon != serving.epsilon) & (decisions.epsilon != 0.0)
    yield "a pool or an ε that the release does not have", odd
    yield "drawn under caps, which the judge cannot redraw", decisions.capped
    yield "rewards told with randomised response", decisions.noisy


def _unfit(decisions: Decisions) -> Iterator[tuple[str, Any]]:
    yield "a short slate, or an item that the lab does not know", (decisions.items < 0).any(axis=1)
    yield "no judged slot", ~decisions.judged.any(axis=1)


def _unexplained(
    decisions: Decisions, log: Slates, rebuilt: Propensities
) -> Iterator[tuple[str, Any]]:
    yield from faulty(log).items()
    same = np.isclose(rebuilt.conditional, decisions.conditional, rtol=1e-6, atol=0.0).all(axis=1)
    same &= np.isclose(rebuilt.marginal, decisions.logged, rtol=1e-6, atol=0.0).all(axis=1)
    yield "propensities that rank, pool and ε do not explain", ~same


def _slates(decisions: Decisions, rebuilt: Propensities) -> Slates:
    logged = Propensities(decisions.conditional, decisions.logged, rebuilt.inclusion)
    clicks = np.where(np.isfinite(decisions.reward), decisions.reward > 0, np.nan)
    return Slates(clicks, decisions.judged, decisions.group, logged, decisions.survived)


def _plain(policy: str, estimate: Estimate) -> dict[str, Any]:
    row = {
        name: value
        for name, value in vars(estimate).items()
        if name not in ("resampled", "without")
    }
    for name in ("bernstein", "betting"):
        row[name] = row[name] and [row[name].low, row[name].high]
    return {"policy": policy, **row} | (dict.fromkeys(SAID) if estimate.refused else {})
