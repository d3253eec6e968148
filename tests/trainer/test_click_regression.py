"""The click regression: its loss, what it learns from biased slates, and what does not teach."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import PopularityHistory
from sanderling_trainer.jobs.learner import learn
from sanderling_trainer.policy.training.batches import batches, decision_points
from sanderling_trainer.policy.training.click_regression import (
    USERS_RIDGE,
    ClickRegression,
    click_regression,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.shown_scores import slot_regression
from sanderling_trainer.policy.training.targets import targets_of
from tests.support.click_logs import ITEMS, SMALL, decisions_of, history, network

pytestmark = pytest.mark.lab


def random_log(seed: int, m: int = 30) -> tuple[list[History], Decisions]:
    rng = np.random.default_rng(seed)
    found = [history(rng, int(rng.integers(0, 6))) for _ in range(8)]
    user = rng.integers(0, 8, m)
    items = rng.integers(-1, ITEMS, (m, 3))
    reward = np.where(rng.random((m, 3)) < 0.3, 1.0, -1.0)
    position = np.array([rng.integers(0, len(found[index]) + 1) for index in user])
    judged = rng.random((m, 3)) < 0.8
    return found, decisions_of(user, items, reward, position=position, judged=judged)


def whole_loss(regression: ClickRegression, context: TrainingContext, log: Decisions) -> float:
    (batch,) = batches(context.histories_in_memory, 10**6, context.device)
    return regression(decision_points(batch, log)).item()


def test_the_loss_equals_a_loop_over_slots():
    """Each judged slot costs its log loss, by the policy's score, the slot and the user."""
    for seed in range(3):
        found, log = random_log(seed)
        policy = network()
        context = TrainingContext(policy, found, SMALL, repeats=True)
        regression = ClickRegression(context, log)
        model = regression.model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

        loss = 0.0
        slots = 0
        for row in range(len(log)):
            past = found[log.history[row]]
            cut = slice(0, int(log.position[row]))
            state = policy.states(
                policy.items(),
                torch.from_numpy(past.items[cut])[None],
                torch.from_numpy(past.kinds[cut])[None],
            )[0, -1]
            scores = policy.logits(policy.users(state), policy.items())
            for slot, item in enumerate(log.items[row]):
                if log.judged[row, slot] and item >= 0:
                    z = model.scale * scores[item] + model.slot[slot] + model.constant
                    z = z + model.user[log.history[row]]
                    sign = 1.0 if log.reward[row, slot] > 0 else -1.0
                    loss += float(torch.nn.functional.softplus(-sign * z).detach())
                    slots += 1
        expected = loss / max(1.0, regression.click_rate * slots)
        expected += USERS_RIDGE * float(model.user.square().mean().detach())
        with torch.no_grad():
            assert whole_loss(regression, context, log) == pytest.approx(expected, rel=1e-4)


def test_scale_and_slots_are_fitted_before_the_network_learns():
    """At the network's first step neither scale, slots nor constant could be better."""
    found, log = random_log(4, m=300)
    policy = network()
    with torch.no_grad():
        policy.bias.copy_(torch.linspace(-3.0, 3.0, ITEMS))
    clicks = np.random.default_rng(4).random(log.items.shape) < (log.items + 1.0) / (ITEMS + 1.0)
    log = replace(log, reward=np.where(clicks, 1.0, -1.0).astype(np.float32))
    regression = ClickRegression(TrainingContext(policy, found, SMALL, repeats=True), log)
    regression.fit_effects()

    (batch,) = batches(found, 10**6, torch.device("cpu"))
    regression(decision_points(batch, log)).backward()
    for effect in (regression.model.scale, regression.model.slot, regression.model.constant):
        assert float(effect.grad.abs().max()) < 1e-3


def test_the_regression_on_slots_equals_one_by_scipy():
    """Scale and effects of slots, from judged slots alone."""
    rng = np.random.default_rng(5)
    scores = rng.normal(3.0, 2.0, (150, 4))
    clicked = rng.random(scores.shape) < 1.0 / (1.0 + np.exp(2.0 - 0.4 * scores))
    judged = rng.random(scores.shape) < 0.9
    scale, slot = slot_regression(scores, clicked.astype(float), judged.astype(float))

    sign = np.where(clicked, 1.0, -1.0)

    def loss(values: np.ndarray) -> float:
        logits = values[0] * scores + values[1:]
        return float((judged * np.logaddexp(0.0, -sign * logits)).sum())

    best = minimize(loss, np.zeros(5)).x
    assert scale == pytest.approx(best[0], abs=0.01)
    np.testing.assert_allclose(slot, best[1:], atol=0.05)


def test_a_linear_start_learns_at_its_own_pace():
    """Where `train` kept the linear start a night moves the network less."""
    found, log = random_log(6, m=200)
    moved = {}
    for stop_after in (0, None):
        policy = network()
        before = copy.deepcopy(policy)
        config = replace(SMALL, stop_after=stop_after)
        popularity = PopularityHistory.of_histories(found, ITEMS)
        learn(TrainingContext(policy, found, config, True, popularity), log)
        moved[stop_after] = float((policy.w1 - before.w1).detach().abs().mean())
    assert 0.0 < moved[0] < 0.7 * moved[None]


def test_randomized_rewards_give_the_same_loss_on_average():
    """Rewards flipped with probability 1/4 and corrected have the exact rewards' loss as mean."""
    found, log = random_log(1)
    context = TrainingContext(network(), found, SMALL, repeats=True)
    exact = ClickRegression(context, log)
    with torch.no_grad():
        slots = float((log.judged & (log.items >= 0)).sum())
        expected = whole_loss(exact, context, log) * max(1.0, exact.click_rate * slots)
        found_losses = []
        for sign in (1.0, -1.0):  # all kept, or all flipped
            noisy = replace(log, reward=(sign * log.reward / 0.5).astype(np.float32))
            regression = ClickRegression(context, noisy)
            regression.model.load_state_dict(exact.model.state_dict())
            loss = whole_loss(regression, context, noisy)
            found_losses.append(loss * max(1.0, regression.click_rate * slots))
    assert 0.75 * found_losses[0] + 0.25 * found_losses[1] == pytest.approx(expected, rel=1e-4)


def test_a_catalog_that_is_sampled_learns_from_batches_without_decisions():
    """Above `full_softmax` the gradient of such a batch is sparse, and the residuals move."""
    config = replace(SMALL, full_softmax=ITEMS - 1, negatives=4, batch_events=6)
    rng = np.random.default_rng(0)
    found = [history(rng, 5) for _ in range(4)]
    log = decisions_of(np.array([0]), np.array([[1, 2, 3]]), np.array([[1.0, -1.0, -1.0]]))
    policy = network()
    before = policy.residual.detach().clone()
    click_regression(TrainingContext(policy, found, config, repeats=True), log)
    moved = (policy.residual != before).any(dim=1).detach().numpy()
    assert moved[np.unique(np.concatenate([each.items for each in found]))].all()


def biased_log(seed: int, m: int = 3000) -> tuple[list[History], Decisions, np.ndarray]:
    """Return slates that mostly show the items with the fewest clicks, on top of the slate."""
    rng = np.random.default_rng(seed)
    rates = np.linspace(0.05, 0.6, ITEMS)
    shown = np.linspace(3.0, 0.0, ITEMS)
    items = np.argsort(-(shown + rng.gumbel(size=(m, ITEMS))), axis=1)[:, :3]
    examined = rng.random((m, 3)) < np.array([1.0, 0.7, 0.4])
    clicks = examined & (rng.random((m, 3)) < rates[items])
    found = [history(rng, 0) for _ in range(20)]
    reward = np.where(clicks, 1.0, -1.0)
    return found, decisions_of(rng.integers(0, 20, m), items, reward), rates


def test_scores_follow_click_rates_whatever_was_shown_most():
    """From slates that favour the worst items, and top slots that are clicked most, the scores
    learn the order of the click rates; users without events teach too.
    """
    found, log, rates = biased_log(0)
    policy = network()
    context = TrainingContext(policy, found, SMALL, repeats=True)
    for _ in range(8):
        click_regression(context, log)
    with torch.no_grad():
        state = torch.zeros(SMALL.state)
        scores = policy.logits(policy.users(state), policy.items()).numpy()
    assert np.corrcoef(scores, np.log(rates / (1.0 - rates)))[0, 1] > 0.9


def test_answers_to_slates_are_no_targets():
    """A click on a slate moves the state, and teaches by its decision only."""
    one = history(np.random.default_rng(0), 6)
    answered = replace(one, is_response=np.array([False, True] * 3))
    targets = targets_of([answered], 0.0, 0.0, repeats=True, validation=None)
    assert targets.target.tolist() == one.items[::2].tolist()


def test_a_night_learns_by_the_learner_of_the_checkpoint():
    """`config.learner` decides; the policy gradient is still there, and a typing error raises."""
    found, log, _ = biased_log(1, m=60)
    learned = {}
    for learner in ("click_regression", "policy_gradient"):
        config = replace(SMALL, learner=learner, policy_epochs=1)
        context = TrainingContext(copy.deepcopy(network()), found, config, repeats=True)
        metrics = learn(context, log)
        assert (metrics["learner"], metrics["decisions"]) == (learner, 60)
        learned[learner] = metrics
    assert "kl" in learned["policy_gradient"]
    assert "--interactions" in learned["click_regression"]["supervision"]
    with pytest.raises(ValueError, match="learner: expected"):
        replace(SMALL, learner="gradient")


def test_nothing_judged_is_an_error():
    """A log without a judged slot cannot be regressed on."""
    found, log = random_log(0)
    log = replace(log, judged=np.zeros_like(log.judged))
    with pytest.raises(ValueError, match="at least one judged slot"):
        click_regression(TrainingContext(network(), found, SMALL, repeats=True), log)
