"""A cross-fitted model of clicks: an effect for each slot plus a shrunken effect for each item.

q̂(a, k) = μ_k + δ_a, ridge regression of clicks on slot and item with the penalty on items alone
(Hoerl and Kennard 1970), so that q̂ follows every shift of the rewards. All decisions of a group
are in one fold, and a fold is predicted by the others alone (Chernozhukov et al. 2018), so that no
reward predicts itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.ope.propensities import (
    best_remaining_rank,
    marginal_tables,
    settings_of,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
SHRINKAGE = 20.0


class Predictions(NamedTuple):
    """A model's clicks for the shown items and for a target policy, each float64 [m, K]."""

    shown: Floats
    """Of the shown item."""

    expected: Floats
    """The target policy's mean over all slates."""

    expected_given_above: Floats
    """The target policy's mean given the slots above."""

    slot: Floats
    """The slot's own part of the three above.

    `inclusion` must not see it: its weights average 1 over the slate, not in each slot.
    """


class RewardExamples(NamedTuple):
    """m slates of K slots to fit the model to."""

    reward: Floats
    """Clicks, float64 [m, K]."""

    judged: NDArray[np.bool_]
    """Which rewards are known, bool [m, K]."""

    items: Ints
    """Item rows, int64 [m, K], -1 for an empty slot."""

    group: Ints
    """What must stay in one fold, int64 [m]."""

    pass_probability: Floats
    """The probability in (0, 1] with which each decision is in the log, float64 [m]."""


@dataclass(frozen=True)
class RewardModel:
    """A fitted model; its predictions are for the decisions that it was fitted to."""

    slot_effect: Floats
    """μ, float64 [folds, K]."""

    item_effect: Floats
    """δ, float64 [folds, n]."""

    fold: Ints
    """The fold of each decision, int64 [m]."""

    def take(self, rows: Any) -> RewardModel:
        """Return the model for some of the decisions that it was fitted to."""
        return replace(self, fold=self.fold[rows])

    def clicks(self, items: Ints) -> Floats:
        """Return the predicted clicks float64 [m, c] in a mean slot, at least 0; 0 for -1."""
        mean = self.slot_effect[self.fold].mean(axis=1, keepdims=True)
        return np.where(items >= 0, np.maximum(mean + self.item_effects(items), 0.0), 0.0)

    def item_effects(self, items: Ints) -> Floats:
        """Return δ float64 [m, c] of items int64 [m, c], 0 for -1.

        A decision's effects are those fitted without its own fold.
        """
        return np.where(items >= 0, self.item_effect[self.fold[:, None], items], 0.0)

    def predict(
        self, items: Ints, pool_items: Ints, ranks: Ints, pool: Ints, epsilon: Floats | float
    ) -> Predictions:
        """Return q̂ of the shown items int64 [m, K] and of a target policy.

        pool_items int64 [m, M] is the target's greedy order of its pool, in which the shown items
        stand at `ranks` int64 [m, K]; pool and epsilon are as in `propensities.settings_of`.
        """
        slot = self.slot_effect[self.fold]
        pool_effects = self.item_effects(pool_items)
        expected, given_above = expected_rewards(pool_effects, ranks, pool, epsilon)
        return Predictions(
            shown=slot + self.item_effects(items),
            expected=slot + expected,
            expected_given_above=slot + given_above,
            slot=slot - slot.mean(axis=1, keepdims=True),
        )


def fit_reward_model(
    examples: RewardExamples, n_items: int, rng: np.random.Generator
) -> RewardModel:
    """Fit the model to slates of a catalog of `n_items` items; `rng` assigns the folds."""
    _, code = np.unique(examples.group, return_inverse=True)
    fold = (rng.permutation(code.max(initial=0) + 1) % FOLDS)[code]
    slots = examples.items.shape[1]

    usable = examples.judged & (examples.items >= 0)
    weight = (usable / examples.pass_probability[:, None])[usable]
    reward = examples.reward[usable].astype(np.float64)
    item_index = examples.items[usable]
    slot_index = np.broadcast_to(np.arange(slots), usable.shape)[usable]
    fold_index = np.broadcast_to(fold[:, None], usable.shape)[usable]

    cell = (fold_index * slots + slot_index) * n_items + item_index
    shape = FOLDS, slots, n_items
    shown = _sums_of_other_folds(cell, weight, shape)
    clicks = _sums_of_other_folds(cell, weight * reward, shape)

    # The normal equations with the items eliminated (Schur complement) leave one system of K
    # unknowns for each fold, however many items there are.
    by_slot = shown.sum(axis=2)
    by_item = shown.sum(axis=1) + SHRINKAGE
    item_alone = clicks.sum(axis=1) / by_item
    never_shown = by_slot == 0.0
    system = (by_slot + never_shown)[:, :, None] * np.eye(slots)
    system -= (shown / by_item[:, None]) @ shown.swapaxes(1, 2)
    right_side = clicks.sum(axis=2) - np.einsum("fkn,fn->fk", shown, item_alone)
    slot_effect = np.linalg.solve(system, right_side[:, :, None])[:, :, 0]

    item_effect = item_alone - np.einsum("fkn,fk->fn", shown, slot_effect) / by_item
    return RewardModel(slot_effect, item_effect, fold)


def expected_rewards(
    q: Floats, ranks: Ints, pool: Ints | int, epsilon: Floats | float
) -> tuple[Floats, Floats]:
    """Return the mean of q under scheme `sequential`, over all slates and given the slots above.

    Both are float64 [m, K]. q float64 [m, M] is in the policy's greedy order, of which each
    decision uses its first `pool`; ranks int64 [m, K] are the shown items' ranks in it. Where an
    item above is beyond the pool, the policy never shows such a slate: the second mean has no
    meaning there, and its weight is 0.
    """
    m, slots = ranks.shape
    pools, epsilons = settings_of(m, slots, pool, epsilon)
    q = np.where(np.arange(q.shape[1]) < pools[:, None], q, 0.0)

    expected = np.empty((m, slots))
    for rows, table in marginal_tables(pools, epsilons):
        expected[rows] = q[rows][:, : table.shape[1]] @ table.T

    # Given the slots above: an explored slot is uniform over what they left, a greedy one takes
    # the best of it.
    row = np.arange(m)[:, None]
    last = q.shape[1] - 1
    shown = np.where(ranks < pools[:, None], q[row, np.minimum(ranks, last)], 0.0)
    taken = np.cumsum(shown, axis=1)
    taken_above = np.concatenate([np.zeros((m, 1)), taken[:, :-1]], axis=1)
    items_left = np.maximum(pools[:, None] - np.arange(slots), 1)
    explored = (q.sum(axis=1, keepdims=True) - taken_above) / items_left
    greedy = q[row, np.minimum(best_remaining_rank(ranks), last)]
    return expected, epsilons * explored + (1.0 - epsilons) * greedy


def _sums_of_other_folds(cell: Ints, values: Floats, shape: tuple[int, int, int]) -> Floats:
    """Return float64 [folds, K, n]: the sums of values by flat cell, over all other folds."""
    own = np.bincount(cell, values, int(np.prod(shape))).reshape(shape)
    return np.asarray(own.sum(axis=0) - own)
