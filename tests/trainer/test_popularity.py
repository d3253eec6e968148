"""Popularity features, and the linear recommender that training starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanderling.errors import TableError
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import (
    DAY,
    FEATURES,
    MAX_AGE_DAYS,
    PRIOR,
    WINDOWS,
    PopularityHistory,
)
from sanderling_trainer.data.tables import Catalog, Interactions
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.train import train
from sanderling_trainer.policy.training.batches import PopularityTable, training_batches
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import CrossEntropy

pytestmark = pytest.mark.lab

EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 120 * DAY)),
    min_size=1,
    max_size=40,
)


def popularity_from(events, items=6) -> PopularityHistory:
    user, row, time = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return PopularityHistory.of(user, row, time, items)


def naive_features(events, items, day):
    likes = {(user, row, time // DAY) for user, row, time in events if time // DAY < day}
    columns = []
    for window in (*WINDOWS, day + 1):
        count = np.array(
            [
                sum(1 for _, row, on in likes if row == item and on >= day - window)
                for item in range(items)
            ]
        )
        columns.append(np.log((count + PRIOR) / (count.mean() + PRIOR)))
    days = [[on for _, row, on in likes if row == item] for item in range(items)]
    columns.append(np.array([float(bool(seen)) for seen in days]))
    columns.append(
        np.array(
            [min(day - min(seen), MAX_AGE_DAYS) / MAX_AGE_DAYS if seen else 0.0 for seen in days]
        )
    )
    return np.stack(columns, axis=1)


@given(EVENTS, st.integers(0, 130))
def test_features_are_counts_of_users_in_windows(events, day):
    """The vectorized features equal the definition, counted one by one."""
    found = popularity_from(events).features([day])[0]
    assert found.shape == (6, FEATURES)
    np.testing.assert_allclose(found, naive_features(events, 6, day), atol=1e-5)


@given(EVENTS, st.integers(0, 119))
def test_features_of_a_day_ignore_the_day_itself(events, day):
    """Events on the day or later do not change the features with which the day begins."""
    earlier = [event for event in events if event[2] // DAY < day] or [(0, 0, 119 * DAY)]
    np.testing.assert_array_equal(
        popularity_from(events).features([day]), popularity_from(earlier).features([day])
    )


def test_a_count_continues_from_a_file(tmp_path):
    """A stored count with new events added equals the count of both logs."""
    first, second = [(0, 1, DAY), (1, 1, DAY), (0, 2, 2 * DAY)], [(2, 1, 2 * DAY), (3, 1, 5 * DAY)]
    popularity_from(first).save(tmp_path / "popularity.parquet")
    together = PopularityHistory.load(tmp_path / "popularity.parquet", 6).plus(
        popularity_from(second)
    )
    np.testing.assert_array_equal(
        together.features([3, 6]), popularity_from(first + second).features([3, 6])
    )


def test_replayed_events_are_not_counted_again():
    """Events that a state reset repeats count where they were first reported, not on
    the day of the reset.
    """
    none, all_liked = np.full(3, -1, np.int64), np.ones(3, np.bool_)
    items, times = np.array([4, 5, 6], np.int64), np.array([9 * DAY, 9 * DAY, 9 * DAY], np.int64)
    history = History(
        items, np.zeros(3, np.int64), all_liked, none, ~all_liked, times, n_replayed=2
    )
    found = PopularityHistory.of_histories([history], 10)
    assert (found.day.tolist(), found.row.tolist(), found.users.tolist()) == ([9], [6], [1])


def test_no_histories_have_no_likes():
    """A night without a new event counts nothing, and is no error."""
    assert len(PopularityHistory.of_histories([], 10).day) == 0


def test_a_table_of_days_looks_up_the_day_and_the_last_one_for_later_ones():
    """Biases by table are w · f of the point's own day, or of the last known day before it."""
    popularity, weights = (
        popularity_from([(0, 1, 3 * DAY), (1, 2, 9 * DAY)]),
        torch.arange(FEATURES, dtype=torch.float32),
    )
    found = PopularityTable(popularity, torch.device("cpu")).biases(
        np.array([9, 3, 50, 10]), weights
    )
    expected = torch.from_numpy(popularity.features([9, 3, 10, 10])) @ weights
    torch.testing.assert_close(found, expected)


def test_biases_are_those_of_the_day_and_a_new_item_has_features():
    """Biases are b + w · f of the day, and a new item has the features of an item
    that nobody liked.
    """
    network = PolicyNetwork(
        Config(dim=4, state=4, hidden=8), torch.randn(6, 3), torch.empty(0, 3), 1
    )
    popularity = popularity_from([(0, 1, DAY), (1, 1, DAY), (2, 0, DAY)])
    network.set_popularity_day(popularity, 2)
    with torch.no_grad():
        biases = network.biases()
    assert biases.argmax() == 1
    assert biases[5] < biases[0] < biases[1]
    torch.testing.assert_close(network.new_item_popularity, network.popularity[5], atol=0.2, rtol=0)


def test_without_a_table_the_supervision_uses_the_policys_own_scores():
    """Cross-entropy beside the policy gradient uses the network's scores with popularity."""
    torch.manual_seed(0)
    config = Config(dim=4, state=4, hidden=8)
    network = PolicyNetwork(config, torch.randn(6, 3), torch.empty(0, 3), 1).eval()
    network.set_popularity_day(popularity_from([(0, 1, DAY), (1, 1, DAY), (2, 0, DAY)]), 2)
    context = TrainingContext(network, [history([4])], config, repeats=True)
    ((batch, targets),) = training_batches(context, context.histories, None)
    with torch.no_grad():
        scores = network.logits(network.users(torch.zeros(4)), network.items())
        expected = -scores.log_softmax(-1)[4]
        torch.testing.assert_close(CrossEntropy(context)(batch, targets), expected)


def history(rows) -> History:
    n = len(rows)
    return History(
        np.array(rows), np.zeros(n, np.int64), np.ones(n, bool), np.full(n, -1), np.zeros(n, bool)
    )


def test_factors_are_those_of_the_ridge_autoencoder():
    """At full rank, q qᵀ is the closed form (XᵀX + λ)⁻¹ XᵀX."""
    rng = np.random.default_rng(0)
    x = (rng.random((40, 12)) < 0.3).astype(np.float64)
    x[0] = 1
    q = linear_init.ridge_factors([history(np.flatnonzero(row)) for row in x], 12, 11, 50.0)
    gram = x.T @ x
    expected = np.linalg.solve(gram + 50.0 * np.eye(12), gram)
    np.testing.assert_allclose(q @ q.T, expected, atol=0.01)


def test_the_network_starts_as_the_linear_recommender():
    """With residuals alone and no forgetting, users' scores are proportional to Σ_j q_j · q_i."""
    rng = np.random.default_rng(1)
    rows = [rng.choice(12, 5, replace=False) for _ in range(60)]
    q = linear_init.ridge_factors([history(each) for each in rows], 12, 6, 200.0)
    network = PolicyNetwork(
        Config(dim=6, state=6, hidden=12), torch.zeros(12, 3), torch.empty(0, 3), 1
    ).eval()
    linear_init.initialize(network, q)
    with torch.no_grad():
        network.decay_logit.fill_(9.0)
        items = network.items()
        sequence = torch.from_numpy(rows[0])[None]
        state = network.states(items, sequence, torch.zeros_like(sequence))[0, -1]
        users = network.users(state - state.mean()) @ items.T
    sums = q[rows[0]].sum(axis=0)
    np.testing.assert_allclose(
        np.corrcoef(users.numpy(), (sums - sums.mean()) @ q.T)[0, 1], 1.0, atol=1e-3
    )


def test_nothing_random_reaches_the_scores_before_training():
    """With texts, spare channels and spare hidden units, scores are those of the closed form."""
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    rows = [rng.choice(12, 5, replace=False) for _ in range(60)]
    q = linear_init.ridge_factors([history(each) for each in rows], 12, 6, 20.0)
    network = PolicyNetwork(
        Config(dim=6, state=18, hidden=18), torch.randn(12, 3), torch.empty(0, 3), 1
    ).eval()
    linear_init.initialize(network, q, memory=30.0, gain=2.0)
    with torch.no_grad():
        items = network.items()
        sequence = torch.from_numpy(rows[0])[None]
        state = network.states(items, sequence, torch.zeros_like(sequence))[0, -1]
        scores = (network.users(state) @ items.T).numpy()
    sums = np.exp(-np.arange(5)[::-1] / 30.0) @ q[rows[0]] @ q.T
    np.testing.assert_allclose(scores / np.linalg.norm(scores), sums / np.linalg.norm(sums),
                               atol=1e-4)  # fmt: skip


def test_an_empty_log_initializes_nothing():
    """Without a liked event there are no factors, and the network is unchanged."""
    q = linear_init.ridge_factors([history([])], 5, 4, 200.0)
    assert q.shape == (5, 0)
    network = PolicyNetwork(
        Config(dim=4, state=4, hidden=8), torch.zeros(5, 3), torch.empty(0, 3), 1
    )
    before = network.w2.clone()
    linear_init.initialize(network, q)
    torch.testing.assert_close(network.w2, before)


def test_a_log_without_a_like_is_an_error(tmp_path):
    """Training on dislikes alone raises an error; no untrained policy is written."""
    ids = [f"item {row}" for row in range(4)]
    shown = np.arange(40, dtype=np.int64)
    log = Interactions(
        shown % 5, shown % 4, shown, np.full(40, -1.0, np.float32), np.zeros(40, np.int64),
        np.full(40, -1),
        [str(user) for user in range(5)], ["dislike"], [],
    )  # fmt: skip
    with pytest.raises(TableError, match="expected at least one reward above 0"):
        train(Catalog(ids, ids, [{"id": one} for one in ids]), log, tmp_path, Config(), app="test")
