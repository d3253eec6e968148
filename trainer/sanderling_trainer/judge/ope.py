"""Off-policy judgement of slates: what would the click rate have been, had another policy chosen?

Every estimator averages clicks times a weight, the target policy's probability over the logging policy's, over the
judged slots; they differ in whose probability, and so in what must hold for them to be right:

    SIPS        of the whole slate                nothing
    RIPS        of the slots down to this one     an item's reward depends on the items above it at most
    IIPS        of the item in its slot           it depends on item and slot, not on the other items
    inclusion   of the item anywhere in the slate it depends on the item alone, neither on slot nor on neighbours

Sources: SIPS, IIPS: Li et al. 2018, "Offline evaluation of ranking policies with click models" (list and item-position
estimators); RIPS: McInerney et al. 2020, "Counterfactual evaluation of slate recommendations with sequential reward
interactions"; `SN-` self-normalised: Swaminathan and Joachims 2015, here over all slots at once; clipped: Ionides 2008.

That a slot is judged must not depend on what it shows. Refuses to know policies and rewards other than clicks, and to
pass off an estimate whose weights are bad: it is given, and marked as refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.explore import marginals
from sanderling_trainer.data.examples import Decisions
from sanderling_trainer.judge.intervals import Interval, percentiles, resample

Floats = NDArray[np.float64]

CAP = float(np.exp(3.0))
LEAST_ESS = 100.0
LEAST_GROUPS = 10
PRIMARY = "SN-inclusion"


class Propensities(NamedTuple):
    """A policy's probabilities of the shown items, each float64 [m, K], 0 where it would never show the item so.

    `conditional` is given the slots above, `marginal` in this slot over all slates, `inclusion` in any slot.
    """

    conditional: Floats
    marginal: Floats
    inclusion: Floats


@dataclass(frozen=True)
class Estimate:
    """A click rate per judged slot, with its 95 % percentile interval over resampled groups.

    `ess` is Kish's effective sample size in decisions: that of the slots' weights, over the judged slots of a decision.
    `mean_weight` ought to be 1. `refused` says why the value is not to be relied on, None if nothing speaks against it.
    `resampled` float64 [RESAMPLES] are the values on the resamples, which all estimates of one call share.
    """

    estimator: str
    value: float
    low: float
    high: float
    ess: float
    mean_weight: float
    max_weight: float
    refused: str | None
    resampled: Floats = field(repr=False, compare=False)


def sequential_propensities(
    ranks: NDArray[np.int64], slots: int, pool: NDArray[np.int64] | int, epsilon: float
) -> Propensities:
    """Return a policy's probabilities, under scheme `sequential`, of shown items that stand at its own `ranks`.

    ranks int64 [m, slots] are the shown items' places in the policy's greedy order of what was eligible, pool int64 [m]
    or one for all; an item at or beyond the pool is never shown. Raises `ValueError` for a negative rank.
    """
    if (ranks < 0).any():
        raise ValueError(f"expected ranks of at least 0, found {ranks.min()}")
    pools = np.broadcast_to(np.asarray(pool, np.int64), len(ranks))
    inside = ranks < pools[:, None]
    conditional = np.empty(ranks.shape)
    for slot in range(slots):
        rank = ranks[:, slot]
        best = (ranks[:, :slot] < rank[:, None]).sum(axis=1) == rank
        conditional[:, slot] = epsilon / np.maximum(pools - slot, 1) + (1.0 - epsilon) * best
    marginal, inclusion = np.empty(ranks.shape), np.empty(ranks.shape)
    for size in np.unique(pools):
        chosen = pools == size
        table = np.zeros((slots, size))
        table[: min(slots, size)] = marginals(min(slots, int(size)), int(size), epsilon)
        within = np.minimum(ranks[chosen], size - 1)
        marginal[chosen] = table[np.arange(slots), within]
        inclusion[chosen] = table.sum(axis=0)[within]
    return Propensities(conditional * inside, marginal * inside, inclusion * inside)


def weights(logged: Propensities, target: Propensities) -> dict[str, Floats]:
    """Return the weights float64 [m, K] of SIPS, RIPS, IIPS and inclusion. Raises `ValueError` for a logged 0."""
    if min(float(probability.min(initial=1.0)) for probability in logged) <= 0.0:
        raise ValueError("expected logged propensities above 0, found 0: what was shown cannot have been impossible")
    prefix = np.cumprod(target.conditional / logged.conditional, axis=1)
    return {
        "SIPS": np.broadcast_to(prefix[:, -1:], prefix.shape),
        "RIPS": prefix,
        "IIPS": target.marginal / logged.marginal,
        "inclusion": target.inclusion / logged.inclusion,
    }


def estimates(
    reward: NDArray[Any],
    judged: NDArray[np.bool_],
    group: NDArray[np.int64],
    logged: Propensities,
    target: Propensities,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Return first `observed`, the logging policy's own click rate, then each estimator plain, `SN-` and `clipped`.

    reward [m, K] clicks in {0, 1}, judged bool [m, K], group int64 [m] what to resample. Clipped weights are at most
    e³. Raises `ValueError` when nothing is judged or a reward is not a click.
    """
    if not judged.any():
        raise ValueError("expected at least one judged slot, found none")
    if not np.isin(reward[judged], (0, 1)).all():
        raise ValueError("expected clicks in {0, 1}; estimate on those and transform the estimate")
    clicks, inside = np.where(judged, reward, 0.0).astype(np.float64), judged.astype(np.float64)
    code = np.unique(group, return_inverse=True)[1]
    variants = list(_variants(weights(logged, target), inside))
    columns = [column for _, weight, _ in variants for column in (weight * clicks, weight * inside)]
    sums: Floats = np.stack([np.bincount(code, column.sum(axis=1)) for column in [*columns, inside]], axis=1)
    totals, resampled = sums.sum(axis=0), resample(sums, rng)
    size = len(reward), len(sums)
    found = []
    for at, (name, weight, normalised) in enumerate(variants):
        own = [2 * at, 2 * at + 1, -1]
        found.append(_estimate(name, weight[judged], normalised, totals[own], resampled[:, own], size))
    return found


def difference(estimate: Estimate, observed: Estimate) -> Interval:
    """Return estimate - observed, both of one call of `estimates` and so on the same resamples."""
    return percentiles(estimate.value - observed.value, estimate.resampled - observed.resampled)


def report(
    decisions: Decisions, logged: Propensities, target: Propensities, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the estimates as plain data, with the difference by `PRIMARY` to what was observed.

    Conditional and marginal propensities are the ones that devices logged; inclusion is not on the wire and comes from
    `logged`, so decisions whose other two `logged` does not reproduce (another pool or ε), or with an item that the lab
    does not know, are left out and counted.
    """
    usable = (decisions.items >= 0).all(axis=1) & decisions.judged.any(axis=1)
    usable &= np.isclose(logged.conditional, decisions.conditional, rtol=1e-6, atol=0.0).all(axis=1)
    usable &= np.isclose(logged.marginal, decisions.logged, rtol=1e-6, atol=0.0).all(axis=1)
    counts = {"decisions": int(usable.sum()), "left_out": int((~usable).sum())}
    if not usable.any():
        return {"estimates": [], "difference": None, **counts}
    observed, *found = estimates(
        decisions.reward[usable] > 0,
        decisions.judged[usable],
        decisions.group[usable],
        Propensities(decisions.conditional[usable], decisions.logged[usable], logged.inclusion[usable]),
        Propensities(*(probability[usable] for probability in target)),
        rng,
    )
    primary = next(estimate for estimate in found if estimate.estimator == PRIMARY)
    rows = [_plain("logging", observed), *(_plain("candidate", estimate) for estimate in found)]
    change = {"estimator": PRIMARY, **difference(primary, observed).plain(), "refused": primary.refused}
    return {"estimates": rows, "difference": change, **counts}


def _variants(found: dict[str, Floats], inside: Floats) -> Iterator[tuple[str, Floats, bool]]:
    """Yield name, weights and whether they normalise the estimate."""
    yield "observed", np.ones_like(inside), False
    for name, weight in found.items():
        yield name, weight, False
        yield f"SN-{name}", weight, True
        yield f"clipped {name}", np.minimum(weight, CAP), False


def _estimate(
    name: str, weight: Floats, normalised: bool, totals: Floats, resampled: Floats, size: tuple[int, int]
) -> Estimate:
    """Make an estimate of weight [judged slots] and the sums (weighted clicks, weights, judged slots), once as they are
    [3] and once resampled [RESAMPLES, 3]; `size` is the number of decisions and of groups."""
    decisions, groups = size
    bottom = 1 if normalised else 2
    values = resampled[:, 0] / np.maximum(resampled[:, bottom], 1e-300)
    mean = totals[1] / totals[2]
    error = float(np.std(resampled[:, 1] / np.maximum(resampled[:, 2], 1e-300)))
    ess = float(totals[1] ** 2 / max(np.square(weight).sum(), 1e-300) * decisions / totals[2])
    value = float(totals[0] / totals[bottom]) if totals[bottom] > 0 else 0.0
    reason = _refusal(ess, float(mean), error, groups)
    found = percentiles(value, values)
    return Estimate(name, value, found.low, found.high, ess, float(mean), float(weight.max()), reason, values)


def _refusal(ess: float, mean: float, error: float, groups: int) -> str | None:
    if groups < LEAST_GROUPS:
        return f"{groups} groups to resample, fewer than {LEAST_GROUPS}"
    if ess < LEAST_ESS:
        return f"effective sample size {ess:.0f} is below {LEAST_ESS:.0f}"
    if abs(mean - 1.0) > 3.0 * error + 1e-9:
        return f"mean weight {mean:.3f} is beyond 3 standard errors ({error:.3f}) of 1"
    return None


def _plain(policy: str, estimate: Estimate) -> dict[str, Any]:
    names = ("estimator", "value", "low", "high", "ess", "mean_weight", "max_weight", "refused")
    return {"policy": policy, **{name: getattr(estimate, name) for name in names}}
