"""The cross-fitted reward model, and averages of its predictions over policies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.estimation.slate_simulator import (
    ATTRACTION,
    EXAMINATION,
    ORDER,
    POOL,
    SLOTS,
    TARGET,
    draw_log,
    reward_examples,
)
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.reward_model import FOLDS, SHRINKAGE
from tests.support.naive import naive_expected

pytestmark = pytest.mark.lab


def fitted(sample, seed=0):
    """Fit the model to a simulated log."""
    rng = np.random.default_rng(seed)
    return ope.fit_reward_model(reward_examples(sample), POOL, rng)


def test_each_fold_is_the_ridge_regression_on_the_others():
    """The effects of a fold solve the normal equations on the decisions of all other folds."""
    sample = draw_log("item and position", 400, 0, judged=0.8)
    sample = sample._replace(
        log=sample.log._replace(pass_probability=np.where(np.arange(400) % 3, 1.0, 0.25))
    )
    model = fitted(sample)
    for fold in range(FOLDS):
        rows = np.flatnonzero(model.fold != fold)
        design, target, weight = [], [], []
        for i in rows:
            for slot in range(SLOTS):
                if sample.log.judged[i, slot]:
                    design.append(
                        np.concatenate([np.eye(SLOTS)[slot], np.eye(POOL)[sample.items[i, slot]]])
                    )
                    target.append(sample.log.reward[i, slot])
                    weight.append(1.0 / sample.log.pass_probability[i])
        x, y, w = np.array(design), np.array(target), np.array(weight)
        penalty = np.diag([0.0] * SLOTS + [SHRINKAGE] * POOL)
        wanted = np.linalg.solve(x.T @ (w[:, None] * x) + penalty, x.T @ (w * y))
        np.testing.assert_allclose(
            np.concatenate([model.slot_effect[fold], model.item_effect[fold]]), wanted, atol=2e-3
        )


def test_a_reward_predicts_neither_itself_nor_its_group():
    """Inverting the clicks of one group changes predictions for other groups only."""
    sample = draw_log("independent", 200, 1, group=np.arange(200) // 4)
    first = fitted(sample)
    inverted = sample.log.reward.copy()
    inverted[:4] = 1.0 - inverted[:4]
    second = fitted(sample._replace(log=sample.log._replace(reward=inverted)))
    before, after = first.item_effects(sample.items), second.item_effects(sample.items)
    np.testing.assert_array_equal(before[:4], after[:4])
    assert len(set(first.fold[:4].tolist())) == 1
    assert np.abs(before - after).max() > 1e-6


def test_the_model_recovers_item_and_slot_effects():
    """On many slates better items have higher effects and lower slots have lower ones."""
    sample = draw_log("independent", 20_000, 2)
    model = fitted(sample)
    np.testing.assert_allclose(
        model.item_effect - model.item_effect.mean(axis=1, keepdims=True),
        np.tile(ATTRACTION - ATTRACTION.mean(), (FOLDS, 1)),
        atol=0.03,
    )
    falling = fitted(draw_log("item and position", 5000, 2)).slot_effect.mean(axis=0)
    assert (np.diff(falling) < 0).all() == bool((np.diff(EXAMINATION) < 0).all())


def test_items_that_were_never_shown_have_no_effect():
    """An item without events, and no item at all (-1), have an item effect of 0."""
    sample = draw_log("independent", 100, 3)
    rng = np.random.default_rng(0)
    model = ope.fit_reward_model(reward_examples(sample), POOL + 2, rng)
    assert (
        model.item_effects(np.tile([POOL, POOL + 1, -1], (100, 1))).tolist()
        == [[0.0, 0.0, 0.0]] * 100
    )


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(5)),
    st.integers(3, 5),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 1000),
)
def test_means_over_a_policy_equal_enumeration(order, pool, epsilon, seed):
    """The mean of q over all slates, and given the slots above, equals sums over every slate."""
    q = np.random.default_rng(seed).random(5)
    slate = [rank for rank in order if rank < pool][:3]
    over_all, above = ope.expected_rewards(q[None], np.array([slate]), pool, epsilon)
    wanted, wanted_above = naive_expected(q, slate, pool, epsilon)
    np.testing.assert_allclose(over_all[0], wanted)
    np.testing.assert_allclose(above[0], wanted_above)


def test_each_decision_may_have_its_own_pool():
    """Means with a pool for each decision equal those of each decision alone."""
    q, ranks, pools = (
        np.random.default_rng(0).random((3, 6)),
        np.array([[0, 1, 2], [3, 0, 1], [2, 5, 0]]),
        [3, 4, 6],
    )
    together = ope.expected_rewards(q, ranks, np.array(pools), TARGET)
    for at, pool in enumerate(pools):
        alone = ope.expected_rewards(q[at : at + 1], ranks[at : at + 1], pool, TARGET)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[at], other[0])


def test_predictions_are_of_the_targets_own_items():
    """The target's mean is over its own pool, wherever the logging policy ranked the items."""
    sample = draw_log("independent", 50, 4)
    model = fitted(sample)
    pool_items = np.tile(np.argsort(ORDER), (50, 1))
    found = model.predict(sample.items, pool_items, sample.ranks, np.full(50, POOL), TARGET)
    q = model.item_effect[model.fold[7]]
    wanted, above = naive_expected(q[np.argsort(ORDER)], sample.ranks[7].tolist(), POOL, TARGET)
    np.testing.assert_allclose(found.expected[7], model.slot_effect[model.fold[7]] + wanted)
    np.testing.assert_allclose(
        found.expected_given_above[7], model.slot_effect[model.fold[7]] + above
    )
    np.testing.assert_allclose(
        found.shown[7], model.slot_effect[model.fold[7]] + q[sample.items[7]]
    )
