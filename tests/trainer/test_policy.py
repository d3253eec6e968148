"""The policy's mathematics: gradients, fixed points, parallel against sequential form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sanderling.ranking.user_model import UserModel
from sanderling_trainer.data.histories import History
from sanderling_trainer.policy.checkpoint import NAMES
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches, first_seen, seen_before
from sanderling_trainer.policy.training.losses import TopKOffPolicy, kl_divergence, next_items

pytestmark = pytest.mark.lab


def network(seed: int = 0, n: int = 30, kinds: int = 3) -> PolicyNetwork:
    torch.manual_seed(seed)
    made = PolicyNetwork(
        Config(dim=8, state=12, hidden=10), torch.randn(n, 6), torch.randn(4, 6), kinds
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("length", [1, 2, 7, 64, 300])
def test_the_parallel_form_equals_the_recurrence_on_the_device(length):
    """States and user vectors of the trainer's scan equal the engine's within 1e-4."""
    made = network()
    rng = np.random.default_rng(length)
    items, kinds = rng.integers(0, 30, length), rng.integers(0, 3, length)
    with torch.no_grad():
        vectors = made.items()
        sequence, codes = torch.from_numpy(items)[None], torch.from_numpy(kinds)[None]
        states = made.states(vectors, sequence, codes)[0]
        users = made.users(states, torch.full((length + 1,), 2)).numpy()
    tensors = {name: getattr(made, field).detach().numpy() for name, field in NAMES.items()}
    tensors["state.decay"] = made.decay.detach().numpy()
    device = UserModel(tensors, ["a", "b", "c"])
    state = device.initial_state()
    for step in range(length + 1):
        np.testing.assert_allclose(states[step], state, atol=1e-4)
        user = device.user_vector(state, made.contexts[2].numpy())
        np.testing.assert_allclose(users[step], user, atol=1e-4)
        if step < length:
            state = device.step(state, vectors[items[step]].numpy(), "abc"[kinds[step]])


def test_padding_changes_nothing_before_it():
    """A history padded at the end has the same states as without padding."""
    made = network()
    with torch.no_grad():
        long = made.states(
            made.items(), torch.tensor([[3, 4, -1, -1]]), torch.zeros(1, 4, dtype=torch.long)
        )
        short = made.states(
            made.items(), torch.tensor([[3, 4]]), torch.zeros(1, 2, dtype=torch.long)
        )
    torch.testing.assert_close(long[:, :3], short)


def test_the_surrogate_has_the_gradient_of_its_formula():
    """By finite differences it is -n ω λ_K (r - b) ∇log π with counts n, ω, λ_K held fixed."""
    torch.manual_seed(1)
    scores = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    chosen = torch.tensor([0, 3, 6, 2, 2])
    logged = torch.tensor([0.9, 0.01, 0.5, 0.2, 1e-6], dtype=torch.float64)
    reward = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)

    def log_chosen(x: torch.Tensor) -> torch.Tensor:
        return x.log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)

    counts = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
    surrogate = TopKOffPolicy(baseline=-0.9, cap=math.exp(3), slate=4)
    surrogate(log_chosen(scores), logged, reward, counts).backward()
    policy = log_chosen(scores.detach()).exp()
    weight = torch.minimum(policy / logged, torch.tensor(math.exp(3)))
    factor = counts * weight * 4 * (1 - policy) ** 3 * (reward + 0.9) / 5
    step = 1e-6
    for row in range(5):
        for column in range(7):
            moved = scores.detach().clone()
            moved[row, column] += step
            slope = (log_chosen(moved)[row] - log_chosen(scores.detach())[row]) / step
            assert scores.grad[row, column].item() == pytest.approx(
                -(factor[row] * slope).item(), abs=1e-4
            )


def test_one_slot_gives_plain_importance_sampling():
    """K = 1 makes λ_K = 1: the surrogate is the mean of -ω r log π."""
    log_chosen = torch.log(torch.tensor([0.2, 0.5]))
    logged, reward = torch.tensor([0.4, 0.25]), torch.tensor([1.0, -1.0])
    expected = -((0.2 / 0.4) * log_chosen[0] - (0.5 / 0.25) * log_chosen[1]) / 2
    surrogate = TopKOffPolicy(baseline=0.0, cap=100.0, slate=1)
    torch.testing.assert_close(surrogate(log_chosen, logged, reward, torch.ones(2)), expected)


def test_probabilities_too_small_for_single_precision_give_no_nan():
    """An item that neither policy ever shows has weight 0; one that only the device
    never shows, the cap.
    """
    log_chosen = torch.tensor([-200.0, -1.0], requires_grad=True)
    logged = torch.tensor([1e-300, 1e-300], dtype=torch.float64).float()
    surrogate = TopKOffPolicy(baseline=0.0, cap=20.0, slate=1)
    surrogate(log_chosen, logged, torch.ones(2), torch.ones(2)).backward()
    assert log_chosen.grad.tolist() == [0.0, -10.0]


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_a_three_armed_bandit_converges_to_the_tilted_reference(tau):
    """Off-policy learning with KL weight τ ends at π_ref · exp(r / τ) / Z, whatever
    the logging policy.
    """
    reward, logging = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.2, 0.5, 0.3])
    reference = torch.log_softmax(torch.tensor([0.3, 0.0, -0.4]), -1)
    scores = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([scores], 0.05)
    surrogate = TopKOffPolicy(baseline=0.0, cap=1e9, slate=1)
    for _ in range(900):
        log_policy = scores.log_softmax(-1)
        weight = log_policy.detach().exp() / logging
        expected = sum(
            logging[a] * surrogate(log_policy[a], logging[a], reward[a], torch.ones(()))
            for a in range(3)
        )
        loss = expected + tau * kl_divergence(log_policy[None], reference[None])
        assert torch.isfinite(weight).all()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wanted = torch.softmax(reference + reward / tau, -1)
    torch.testing.assert_close(scores.detach().softmax(-1), wanted, atol=2e-3, rtol=0)


def test_kl_is_zero_without_gradient_at_the_reference():
    """KL(π || π_ref) and its gradient are 0 where π = π_ref; it is positive elsewhere, and finite
    with items that are not eligible.
    """
    scores = torch.tensor([[0.5, -1.0, 2.0, -math.inf]], requires_grad=True)
    log_policy = scores.log_softmax(-1)
    divergence = kl_divergence(log_policy, log_policy.detach())
    divergence.backward()
    assert divergence.item() == 0.0
    assert torch.nan_to_num(scores.grad).abs().max() < 1e-7
    other = torch.tensor([[1.0, 0.0, 0.0, -math.inf]]).log_softmax(-1)
    assert kl_divergence(log_policy, other).item() > 0.1


def test_cross_entropy_is_minus_the_mean_log_probability():
    """The supervised loss is the textbook one."""
    log_policy = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).log_softmax(-1)
    expected = -(log_policy[0, 1] + log_policy[1, 0]) / 2
    pairs = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2)
    torch.testing.assert_close(next_items(log_policy, *pairs), expected)


def test_seen_items_are_those_of_earlier_events_only():
    """An item counts as seen after its event, not at it; padding and unknown items do not count."""

    def history(items):
        n = len(items)
        return History(
            np.array(items),
            np.zeros(n, np.int64),
            np.ones(n, bool),
            np.full(n, -1),
            np.zeros(n, bool),
        )

    (batch,) = batches([history([2, 0, 2]), history([1, -1])], 100, torch.device("cpu"))
    first = first_seen(batch, 4)
    row = torch.tensor([list(batch.indices).index(0)] * 4)
    seen = seen_before(first, row, torch.arange(4))
    assert seen.tolist() == [
        [False, False, False, False],
        [False, False, True, False],
        [True, False, True, False],
        [True, False, True, False],
    ]
