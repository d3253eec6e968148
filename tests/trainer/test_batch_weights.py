"""The weights of batches, and what an install that weighs little moves by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batch_source import InMemory
from sanderling_trainer.policy.training.batch_weights import FULL_STEP, BatchWeights
from sanderling_trainer.policy.training.batches import decision_points
from sanderling_trainer.policy.training.click_regression import (
    TRAINED,
    ClickRegression,
    click_regression,
)
from sanderling_trainer.policy.training.context import TrainingContext
from tests.support.click_logs import ITEMS, SMALL, decisions_of, history, network

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("is_supervised", [False, True])
def test_weights_and_steps_equal_a_loop(is_supervised):
    """A batch weighs its judged slots, or its targets if they are more, over those of the batch
    that the average one is in; half an average batch makes a step.
    """
    rng = np.random.default_rng(0)
    found = [history(rng, length) for length in (0, 1, 1, 2, 4, 5, 9, 9, 9, 12)]
    user = rng.integers(0, len(found), 40)
    log = decisions_of(
        user,
        rng.integers(-1, ITEMS, (40, 3)),
        np.where(rng.random((40, 3)) < 0.3, 1.0, -1.0),
        judged=rng.random((40, 3)) < 0.8,
        influence=rng.uniform(0.1, 1.0, 40),
    )
    context = TrainingContext(network(), found, replace(SMALL, batch_events=10), repeats=True)
    source = InMemory(context, found, need_targets=False)
    weight_of = ClickRegression(context, log).weight_of
    weights = BatchWeights(weight_of, log, source, is_supervised, accumulate=1)

    batches = list(source.training(np.random.default_rng(0)))
    assert len(batches) > 4
    slots, targets = [], []
    for batch, target in batches:
        points = decision_points(batch, log)
        slots.append(0.0)
        for row in points.indices:
            for slot in range(3):
                if log.judged[row, slot] and log.items[row, slot] >= 0:
                    slots[-1] += float(log.weights()[row])
        pairs = zip(target.weight.tolist(), target.influence.tolist(), strict=True)
        targets.append(sum(weight * influence for weight, influence in pairs))
    average_slots = sum(size * size for size in slots) / sum(slots)
    average_targets = sum(size * size for size in targets) / sum(targets)

    steps, waiting = 0, 0.0
    for batch, slot, target in zip(batches, slots, targets, strict=True):
        expected = slot / average_slots
        if is_supervised:
            expected = max(expected, target / average_targets)
        assert weights.of(batch) == pytest.approx(expected, rel=1e-5)
        waiting += expected
        if waiting >= FULL_STEP:
            steps += 1
            waiting = 0.0
    assert weights.steps == steps


def score_of(policy: PolicyNetwork, item: int) -> float:
    """Return how far an item's score for a user without events is above the mean."""
    with torch.no_grad():
        scores = policy.logits(policy.users(torch.zeros(SMALL.state)), policy.items())
    return float(scores[item] - scores.mean())


def test_an_install_that_weighs_little_makes_no_steps_by_itself():
    """Histories of unusual length fill batches of their own; with a weight of one in a thousand
    their clicks move their item less than a tenth of what they do with the weight of others.
    """
    rng = np.random.default_rng(0)
    honest = [history(rng, 2) for _ in range(60)]
    hostile = [history(rng, 60) for _ in range(30)]  # four to a batch of 256 events
    m, rare = 300, ITEMS - 1
    items = rng.permuted(np.tile(np.arange(ITEMS), (m, 1)), axis=1)[:, :3]
    clicked = np.where(rng.random((m, 3)) < 0.3, 1.0, -1.0)
    pushed = np.tile([rare, 0, 1], (30, 1))
    log = decisions_of(
        np.concatenate([rng.integers(0, 60, m), 60 + np.arange(30)]),
        np.concatenate([items, pushed]),
        np.concatenate([clicked, np.tile([1.0, -1.0, -1.0], (30, 1))]),
        position=np.concatenate([np.zeros(m, np.int64), np.full(30, 60)]),
    )

    moved = {}
    for influence in (1.0, 0.001, 0.0):
        policy = network()
        weights = np.concatenate([np.ones(m), np.full(30, influence)])
        context = TrainingContext(policy, [*honest, *hostile], SMALL, repeats=True)
        pace = replace(TRAINED, supervision=0.0)
        click_regression(context, replace(log, influence=weights), pace)
        moved[influence] = score_of(policy, rare)
    most = moved[1.0] - moved[0.0]
    assert most > 0.0
    assert abs(moved[0.001] - moved[0.0]) < 0.1 * most
