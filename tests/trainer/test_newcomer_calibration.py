"""Newcomers: the refitted projection, and the bias that gives them what their likes earn."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, NEVER, PopularityHistory
from sanderling_trainer.policy import newcomers
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.newcomers import RELEASE_DAYS, calibrate_newcomers
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.warm_start import warm_start

pytestmark = pytest.mark.lab

DAYS = 70
USERS = 40
OLD = 16  # items on the first day; then one more every other day
ITEMS = OLD + DAYS // 2
UNBORN = 4  # items that nobody ever liked
SLATE = 4


def texts(items: int, seed: int = 5) -> torch.Tensor:
    """Return text vectors float32 [n, 8]: the first dimension says odd or even, the rest little."""
    generator = torch.Generator().manual_seed(seed)
    vectors = 0.3 * torch.randn(items, 8, generator=generator)
    vectors[:, 0] = 1.0 - 2.0 * (torch.arange(items) % 2)
    return vectors / vectors.norm(dim=1, keepdim=True)


def checkerboard(seed: int = 0) -> list[History]:
    """Return what users did who like an item of their own parity a day, new or old alike."""
    rng = np.random.default_rng(seed)
    found = []
    for user in range(USERS):
        listed = np.minimum(OLD + np.arange(DAYS) // 2, ITEMS - UNBORN)
        items = 2 * rng.integers(0, listed // 2) + user % 2
        found.append(
            History(
                items=items,
                kinds=np.zeros(DAYS, np.int64),
                liked=np.ones(DAYS, np.bool_),
                contexts=np.full(DAYS, -1),
                is_validation=np.zeros(DAYS, np.bool_),
                times=np.arange(DAYS) * DAY + user,
            )
        )
    return found


@pytest.fixture(scope="module")
def fitted() -> TrainingContext:
    """A policy after its warm start on the checkerboard, not calibrated."""
    config = Config(
        dim=8,
        state=16,
        hidden=16,
        epochs=12,
        batch_events=400,
        learning_rate=1e-2,
        slate=SLATE,
        linear_start=False,
    )
    torch.manual_seed(0)
    network = PolicyNetwork(config, texts(ITEMS), torch.empty(0, 8), 1)
    histories = checkerboard()
    popularity = PopularityHistory.of_histories(histories, ITEMS)
    context = TrainingContext(network, histories, config, True, popularity)
    warm_start(context)
    network.set_popularity_day(popularity, DAYS)
    return context


@pytest.fixture
def context(fitted) -> TrainingContext:
    """A copy that a test may change."""
    return TrainingContext(
        copy.deepcopy(fitted.network), fitted.histories, fitted.config, True, fitted.popularity
    )


def users_after(network: PolicyNetwork, histories: list[History]) -> torch.Tensor:
    """Return the users' vectors [h, d] at the end of their histories."""
    sequence = torch.from_numpy(np.stack([history.items for history in histories]))
    with torch.no_grad():
        states = network.states(network.items(), sequence, torch.zeros_like(sequence))
        return network.users(states[:, -1])


def test_known_items_keep_their_scores(context):
    """The refit moves the projection and what it leaves over, not the vectors or the biases of
    items that somebody liked.
    """
    network = context.network
    before = copy.deepcopy(network)
    calibrate_newcomers(context)
    liked = torch.from_numpy(context.popularity.first_days() < NEVER)

    assert (network.project - before.project).abs().max() > 1e-2
    with torch.no_grad():
        torch.testing.assert_close(
            network.items()[liked], before.items()[liked], atol=1e-5, rtol=1e-5
        )
        assert torch.equal(network.biases()[liked], before.biases()[liked])


def test_left_out_predictions_are_those_of_a_fit_without_the_item():
    """The closed form equals solving again without each item in turn."""
    rng = np.random.default_rng(0)
    text, vectors = rng.normal(size=(12, 5)), rng.normal(size=(12, 3))
    _, found = newcomers._Ridge(torch.from_numpy(text), torch.from_numpy(vectors)).solve(0.3)
    penalty = 0.3 * np.trace(text.T @ text) / 5
    for item in range(12):
        others = np.arange(12) != item
        gram = text[others].T @ text[others] + penalty * np.eye(5)
        project = np.linalg.solve(gram, text[others].T @ vectors[others])
        np.testing.assert_allclose(found[item], text[item] @ project, atol=1e-5)


def left_out_vectors(context: TrainingContext, penalty: float) -> torch.Tensor:
    network = context.network
    liked = torch.from_numpy(context.popularity.first_days() < NEVER)
    with torch.no_grad():
        vectors = network.newcomers(network.text)
        ridge = newcomers._Ridge(network.text[liked], network.items()[liked])
        vectors[liked] = ridge.solve(penalty)[1]
    return vectors


def slow_share(context: TrainingContext, penalty: float) -> tuple[float, float]:
    """Return the share of slots that newcomers get, and of likes, one visit after the other."""
    network = context.network
    vectors = left_out_vectors(context, penalty)
    born = context.popularity.first_days()
    slots, likes = [], []
    for history in context.histories_in_memory:
        sequence = torch.from_numpy(history.items)[None]
        with torch.no_grad():
            states = network.states(network.items(), sequence, torch.zeros_like(sequence))[0]
            users = network.users(states)
        for event in range(len(history)):
            day = int(history.times[event] // DAY)
            release = DAYS - RELEASE_DAYS * ((DAYS - 1 - day) // RELEASE_DAYS + 1)
            if release != DAYS - RELEASE_DAYS:
                continue  # the last fortnight has enough likes
            features = torch.from_numpy(context.popularity.features([release])[0])
            ranked = []
            for item in range(ITEMS):
                is_new = born[item] >= release
                if is_new and release + RELEASE_DAYS <= born[item] < NEVER:
                    continue
                with torch.no_grad():
                    vector = vectors[item] if is_new else network.items()[item]
                    own = network.new_item_bias if is_new else network.bias[item]
                    popularity = features[item] @ network.popularity_weights
                    ranked.append((float(users[event] @ vector + own + popularity), is_new))
            slots += [is_new for _, is_new in sorted(ranked, reverse=True)[:SLATE]]
            likes.append(born[history.items[event]] >= release)
    return float(np.mean(slots)), float(np.mean(likes))


def test_newcomers_get_the_share_of_slots_that_their_likes_earn(context):
    """Counted one visit at a time, newcomers have the share of slots that they had of the likes."""
    done = calibrate_newcomers(context)
    slots, likes = slow_share(context, done.penalty)
    assert likes == pytest.approx(done.newcomer_likes / done.likes)
    assert slots == pytest.approx(done.slots_share, abs=2e-3)
    assert slots == pytest.approx(likes, abs=5e-3)
    assert likes > 0.03


def test_new_items_reach_those_who_will_like_them_from_text_alone(context):
    """Items that come after the training, even ones and odd ones, get slots in the slates of the
    users of their own parity and hardly any in others', by their text and one bias.
    """
    network = context.network
    calibrate_newcomers(context)
    network.set_popularity_day(context.popularity, DAYS)
    new = texts(10, seed=9)
    with torch.no_grad():
        known = network.logits(users_after(network, context.histories), network.items())
        vectors = torch.cat([network.items(), network.newcomers(new)])
        bias = network.new_item_bias + network.new_item_popularity @ network.popularity_weights
        users = users_after(network, context.histories)
        scores = torch.cat([known, users @ vectors[ITEMS:].T + bias], dim=1)
    slates = scores.topk(10, dim=1).indices.numpy()

    parity = np.arange(USERS)[:, None] % 2
    is_new = slates >= ITEMS
    own = is_new & ((slates - ITEMS) % 2 == parity)
    assert own.sum() >= 0.05 * slates.size
    assert own.sum() >= 0.9 * is_new.sum()


def test_what_nobody_liked_starts_as_a_newcomer_unless_devices_showed_it(context):
    """Unliked items get the newcomers' bias, those that were shown keep their own; none of them
    has a residual.
    """
    network = context.network
    with torch.no_grad():
        network.bias[-UNBORN:] = -7.0
    calibrate_newcomers(context, shown=np.array([[ITEMS - 1, -1]]))
    assert network.bias[-UNBORN:-1].tolist() == [network.new_item_bias.item()] * (UNBORN - 1)
    assert network.bias[-1] == -7.0
    assert not network.residual[-UNBORN:].any()


def test_texts_that_say_nothing_and_logs_without_newcomers_are_left_as_they_are(context):
    """Without texts the projection stays; where nothing is ever new the bias is the median."""
    network = context.network
    with torch.no_grad():
        network.text.zero_()
    project = network.project.clone()
    histories = [
        History(
            np.arange(OLD),
            np.zeros(OLD, np.int64),
            np.ones(OLD, np.bool_),
            np.full(OLD, -1),
            np.zeros(OLD, np.bool_),
        )
    ]
    popularity = PopularityHistory.of_histories(histories, ITEMS)
    done = calibrate_newcomers(
        TrainingContext(network, histories, context.config, True, popularity)
    )
    assert done.penalty is None
    assert done.newcomer_likes == 0
    assert torch.equal(network.project, project)
    assert network.new_item_bias == pytest.approx(done.bias)
