"""A cross-fitted model of clicks: an effect for each slot plus a shrunken one for each item.

q̂(a, k) = μ_k + δ_a, the ridge regression of clicks on slot and item with λ on items alone (Hoerl and Kennard 1970), so
that q̂ follows every shift of the rewards. Whole groups are in one fold, and a fold is predicted by the others alone
(Chernozhukov et al. 2018), so that no reward predicts itself. Refuses to know policies, but as ranks to average over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.ope.propensities import best_left, per_decision, tables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
SHRINKAGE = 20.0


class Predictions(NamedTuple):
    """A model's clicks, each float64 [m, K]: of the shown item; the target policy's mean over all slates; its mean
    given the slots above; and `slot`, the part of these three that is the slot's alone, which `inclusion` must not see:
    its weights average 1 over the slate, not in each slot."""

    shown: Floats
    expected: Floats
    above: Floats
    slot: Floats


@dataclass(frozen=True)
class RewardModel:
    """μ float64 [folds, K], δ float64 [folds, n], and the fold int64 [m] of each decision it was fitted on."""

    slot: Floats
    item: Floats
    fold: Ints

    def predict(self, items: Ints) -> Floats:
        """Return δ [m, c] of items int64 [m, c], by the folds that did not see the decision; -1 has none."""
        return np.where(items >= 0, self.item[self.fold[:, None], items], 0.0)

    def predictions(
        self, items: Ints, pool_items: Ints, ranks: Ints, pool: Ints, epsilon: Floats | float
    ) -> Predictions:
        """Return q̂ for shown items int64 [m, K] and a target policy whose greedy order of its pool is pool_items
        int64 [m, M], with the shown items at `ranks` [m, K] of it."""
        slot = self.slot[self.fold]
        expected, above = expected_rewards(self.predict(pool_items), ranks, pool, epsilon)
        own = slot - slot.mean(axis=1, keepdims=True)
        return Predictions(slot + self.predict(items), slot + expected, slot + above, own)


def fit(
    reward: Floats,
    judged: NDArray[np.bool_],
    items: Ints,
    group: Ints,
    n: int,
    survived: Floats,
    rng: np.random.Generator,
) -> RewardModel:
    """Fit on m slates of K slots of n items: reward float64 and judged bool [m, K], items int64 [m, K] (-1 for none),
    group int64 [m], survived float64 [m] in (0, 1] the chance with which each decision is in the log."""
    _, code = np.unique(group, return_inverse=True)
    fold = (rng.permutation(code.max(initial=0) + 1) % FOLDS)[code]
    use = judged & (items >= 0)
    weight = (use / survived[:, None])[use]
    slot_at = np.broadcast_to(np.arange(items.shape[1]), items.shape)[use]
    fold_at = np.broadcast_to(fold[:, None], items.shape)[use]
    value, item_at = reward[use].astype(np.float64), items[use]

    slots = items.shape[1]
    cell = (fold_at * slots + slot_at) * n + item_at
    shown = _others(cell, weight, (FOLDS, slots * n)).reshape(FOLDS, slots, n)
    clicks = _others(cell, weight * value, (FOLDS, slots * n)).reshape(FOLDS, slots, n)
    # The normal equations, items eliminated (Schur complement), leave one small system of the slots for each fold.
    by_slot, by_item = shown.sum(axis=2), shown.sum(axis=1) + SHRINKAGE
    item_alone = clicks.sum(axis=1) / by_item
    left = (by_slot + (by_slot == 0.0))[:, :, None] * np.eye(slots) - (
        shown / by_item[:, None]
    ) @ shown.swapaxes(1, 2)
    slot = np.linalg.solve(
        left, (clicks.sum(axis=2) - np.einsum("fkn,fn->fk", shown, item_alone))[:, :, None]
    )[:, :, 0]
    return RewardModel(slot, item_alone - np.einsum("fkn,fk->fn", shown, slot) / by_item, fold)


def expected_rewards(
    q: Floats, ranks: Ints, pool: Ints | int, epsilon: Floats | float
) -> tuple[Floats, Floats]:
    """Return the mean of q under a policy of scheme `sequential`, float64 [m, K] twice: over all slates, and given the
    slots above.

    q float64 [m, M] is in the policy's greedy order, of which each decision uses its first `pool`; ranks int64 [m, K]
    are the shown items' places in it. Where an item above is beyond the pool, the second is that of a slate that the
    policy never shows, and has no meaning; its weight is 0.
    """
    m, slots = ranks.shape
    pools, epsilons = per_decision(m, slots, pool, epsilon)
    q = np.where(np.arange(q.shape[1]) < pools[:, None], q, 0.0)
    expected = np.empty((m, slots))
    for chosen, table in tables(pools, epsilons):
        expected[chosen] = q[chosen][:, : table.shape[1]] @ table.T
    inside, best = ranks < pools[:, None], best_left(ranks)
    row, last = np.arange(m)[:, None], q.shape[1] - 1
    gone = np.cumsum(np.where(inside, q[row, np.minimum(ranks, last)], 0.0), axis=1)
    gone = np.concatenate([np.zeros((m, 1)), gone[:, :-1]], axis=1)
    share = epsilons / np.maximum(pools[:, None] - np.arange(slots), 1)
    above = (
        share * (q.sum(axis=1, keepdims=True) - gone)
        + (1.0 - epsilons) * q[row, np.minimum(best, last)]
    )
    return expected, above


def _others(place: Ints, values: Floats, shape: tuple[int, int]) -> Floats:
    """Return the sums [folds, c] of values at places (fold × c + column) over all folds but each one's own."""
    own = np.bincount(place, values, shape[0] * shape[1]).reshape(shape)
    return np.asarray(own.sum(axis=0) - own)
