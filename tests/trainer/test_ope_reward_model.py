"""The cross-fitted reward model, and averages of its predictions over policies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.estimation.slate_worlds import FALL, LIKED, ORDER, POOL, SLOTS, TARGET, draw
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.reward_model import FOLDS, SHRINKAGE
from tests.support.naive import naive_expected

pytestmark = pytest.mark.lab


def fitted(world, seed=0):
    """Fit the model on a world's log."""
    log = world.log
    return ope.fit(
        log.reward,
        log.judged,
        world.items,
        log.group,
        POOL,
        log.survived,
        np.random.default_rng(seed),
    )


def test_each_fold_is_the_ridge_regression_on_the_others():
    """Slot and item effects of a fold solve the normal equations on the decisions of all other folds."""
    world = draw("item and position", 400, 0, judged=0.8)
    world = world._replace(log=world.log._replace(survived=np.where(np.arange(400) % 3, 1.0, 0.25)))
    model = fitted(world)
    for fold in range(FOLDS):
        rows = np.flatnonzero(model.fold != fold)
        design, target, weight = [], [], []
        for i in rows:
            for slot in range(SLOTS):
                if world.log.judged[i, slot]:
                    design.append(
                        np.concatenate([np.eye(SLOTS)[slot], np.eye(POOL)[world.items[i, slot]]])
                    )
                    target.append(world.log.reward[i, slot])
                    weight.append(1.0 / world.log.survived[i])
        x, y, w = np.array(design), np.array(target), np.array(weight)
        penalty = np.diag([0.0] * SLOTS + [SHRINKAGE] * POOL)
        wanted = np.linalg.solve(x.T @ (w[:, None] * x) + penalty, x.T @ (w * y))
        np.testing.assert_allclose(
            np.concatenate([model.slot[fold], model.item[fold]]), wanted, atol=2e-3
        )


def test_a_reward_never_predicts_itself_nor_its_group():
    """Turning round the clicks of one group changes no prediction for that group, and does change others."""
    world = draw("independent", 200, 1, group=np.arange(200) // 4)
    one = fitted(world)
    turned = world.log.reward.copy()
    turned[:4] = 1.0 - turned[:4]
    other = fitted(world._replace(log=world.log._replace(reward=turned)))
    before, after = one.predict(world.items), other.predict(world.items)
    np.testing.assert_array_equal(before[:4], after[:4])
    assert len(set(one.fold[:4].tolist())) == 1
    assert np.abs(before - after).max() > 1e-6


def test_the_model_finds_items_and_slots():
    """On many slates the effects are those of the world: better items are liked more, lower slots are clicked less."""
    world = draw("independent", 20_000, 2)
    model = fitted(world)
    np.testing.assert_allclose(
        model.item - model.item.mean(axis=1, keepdims=True),
        np.tile(LIKED - LIKED.mean(), (FOLDS, 1)),
        atol=0.03,
    )
    falling = fitted(draw("item and position", 5000, 2)).slot.mean(axis=0)
    assert (np.diff(falling) < 0).all() == bool((np.diff(FALL) < 0).all())


def test_items_that_were_never_shown_get_the_slots_mean():
    """An item without any event, and no item at all (-1), have the effect 0."""
    world = draw("independent", 100, 3)
    log = world.log
    model = ope.fit(
        log.reward,
        log.judged,
        world.items,
        log.group,
        POOL + 2,
        log.survived,
        np.random.default_rng(0),
    )
    assert (
        model.predict(np.tile([POOL, POOL + 1, -1], (100, 1))).tolist() == [[0.0, 0.0, 0.0]] * 100
    )


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(5)),
    st.integers(3, 5),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 1000),
)
def test_means_over_a_policy_equal_enumeration(order, pool, epsilon, seed):
    """The mean of q over all slates, and given the slots above, equal sums over every slate of the pool."""
    q = np.random.default_rng(seed).random(5)
    slate = [rank for rank in order if rank < pool][:3]
    over_all, above = ope.expected_rewards(q[None], np.array([slate]), pool, epsilon)
    wanted, wanted_above = naive_expected(q, slate, pool, epsilon)
    np.testing.assert_allclose(over_all[0], wanted)
    np.testing.assert_allclose(above[0], wanted_above)


def test_decisions_with_their_own_pools_get_their_own_means():
    """Means with a pool for each decision are those of each decision alone."""
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


def test_predictions_belong_to_the_items_of_the_targets_order():
    """The predicted mean of the target is that of its own items, wherever the logging policy ranked them."""
    world = draw("independent", 50, 4)
    model = fitted(world)
    pool_items = np.tile(np.argsort(ORDER), (50, 1))
    found = model.predictions(world.items, pool_items, world.ranks, np.full(50, POOL), TARGET)
    q = model.item[model.fold[7]]
    wanted, above = naive_expected(q[np.argsort(ORDER)], world.ranks[7].tolist(), POOL, TARGET)
    np.testing.assert_allclose(found.expected[7], model.slot[model.fold[7]] + wanted)
    np.testing.assert_allclose(found.above[7], model.slot[model.fold[7]] + above)
    np.testing.assert_allclose(found.shown[7], model.slot[model.fold[7]] + q[world.items[7]])
