"""From the devices' logged decisions to estimates, their difference to the serving policy, and the gate's verdict.

Refuses to drop a decision without counting it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.examples import Decisions
from sanderling_trainer.judge.ope.estimates import Estimate, difference, estimates, faulty
from sanderling_trainer.judge.ope.gate import PRIMARY, Thresholds, Verdict, gate
from sanderling_trainer.judge.ope.propensities import Propensities, largest_weights, sequential_propensities
from sanderling_trainer.judge.ope.reward_model import Predictions
from sanderling_trainer.judge.ope.sums import Slates, cut

SAID = ("value", "low", "high", "bernstein", "betting")


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
    serving: int,
    candidate: Candidate,
    rng: np.random.Generator,
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:
    """Return estimates, the difference by `PRIMARY` to release `serving`, the gate's verdict and counts, as plain data.

    A reward above 0 is a click. Conditional and marginal propensities are the ones that devices logged; inclusion is
    not on the wire and follows from rank, pool and ε. What a refused estimate says is None. Decisions that cannot be
    used, those of other releases among them, are counted by reason in `left_out`.
    """
    thresholds = thresholds or Thresholds()
    log = _slates(decisions)
    usable, left_out = _usable(decisions, serving, log)
    counts = {"decisions": int(usable.sum()), "left_out": left_out}
    if not usable.any():
        verdict = Verdict(False, [f"expected at least one usable decision, found none of {len(decisions)}"])
        return {"estimates": [], "difference": None, "gate": verdict.plain(), **counts}
    observed, *found = estimates(
        cut(log, usable),
        cut(candidate.propensities, usable),
        rng,
        predicted=cut(candidate.predicted, usable),
        unsupported=float(np.average(candidate.unsupported[usable], weights=1.0 / decisions.survived[usable])),
        largest=largest_weights(
            decisions.items.shape[1],
            (decisions.pool[usable], decisions.epsilons()[usable]),
            (candidate.pool[usable], candidate.epsilon),
            int(usable.sum()),
        ),
    )
    primary = next(estimate for estimate in found if estimate.estimator == PRIMARY)
    change = {"estimator": PRIMARY, **difference(primary, observed).plain(), "refused": primary.refused}
    return {
        "estimates": [_plain("logging", observed), *(_plain("candidate", estimate) for estimate in found)],
        "difference": change | (dict.fromkeys(SAID[:3]) if primary.refused else {}),
        "gate": {**gate([observed, *found], thresholds).plain(), "thresholds": asdict(thresholds)},
        **counts,
    }


def _slates(decisions: Decisions) -> Slates:
    logged = Propensities(decisions.conditional, decisions.logged, _rebuilt(decisions).inclusion)
    clicks = np.where(np.isfinite(decisions.reward), decisions.reward > 0, np.nan)
    return Slates(clicks, decisions.judged, decisions.group, logged, decisions.survived)


def _rebuilt(decisions: Decisions) -> Propensities:
    return sequential_propensities(decisions.ranks, decisions.items.shape[1], decisions.pool, decisions.epsilons())


def _usable(decisions: Decisions, serving: int, log: Slates) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return which decisions can be judged, and how many cannot, each by the first reason that applies."""
    usable, left_out = np.ones(len(decisions), np.bool_), {}
    for reason, where in _reasons(decisions, serving, log):
        left_out[reason] = int((usable & where).sum())
        usable &= ~where
    return usable, {reason: count for reason, count in left_out.items() if count}


def _reasons(decisions: Decisions, serving: int, log: Slates) -> Iterator[tuple[str, Any]]:
    yield "decided by another release", decisions.release != serving
    yield "a short slate, or an item that the lab does not know", (decisions.items < 0).any(axis=1)
    yield "drawn under caps, which the judge cannot redraw", decisions.capped
    yield "rewards told with randomised response", decisions.noisy
    yield "no judged slot", ~decisions.judged.any(axis=1)
    yield from faulty(log).items()
    rebuilt = _rebuilt(decisions)
    same = np.isclose(rebuilt.conditional, decisions.conditional, rtol=1e-6, atol=0.0).all(axis=1)
    same &= np.isclose(rebuilt.marginal, decisions.logged, rtol=1e-6, atol=0.0).all(axis=1)
    yield "propensities that rank, pool and ε do not explain", ~same


def _plain(policy: str, estimate: Estimate) -> dict[str, Any]:
    row = {name: value for name, value in vars(estimate).items() if name not in ("resampled", "without")}
    for name in ("bernstein", "betting"):
        row[name] = row[name] and [row[name].low, row[name].high]
    return {"policy": policy, **row} | (dict.fromkeys(SAID) if estimate.refused else {})
