"""What is in fashion, and the linear recommender that learning starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanderling.errors import TableError
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, FEATURES, PRIOR, WINDOWS, YOUNG, Trends
from sanderling_trainer.data.tables import Catalogue, Interactions
from sanderling_trainer.jobs.retrain import popularity_of
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.train import train
from sanderling_trainer.policy.training.batches import TrendTable, lessons
from sanderling_trainer.policy.training.objectives import CrossEntropy

pytestmark = pytest.mark.lab

EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 120 * DAY)),
    min_size=1,
    max_size=40,
)


def trends_of(events, items=6) -> Trends:
    user, row, time = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return Trends.of(user, row, time, items)


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
        np.array([min(day - min(seen), YOUNG) / YOUNG if seen else 0.0 for seen in days])
    )
    return np.stack(columns, axis=1)


@given(EVENTS, st.integers(0, 130))
def test_features_are_counts_of_users_in_windows(events, day):
    """The vectorised features equal the definition, counted one by one."""
    found = trends_of(events).features([day])[0]
    assert found.shape == (6, FEATURES)
    np.testing.assert_allclose(found, naive_features(events, 6, day), atol=1e-5)


@given(EVENTS, st.integers(0, 119))
def test_a_day_does_not_know_itself(events, day):
    """Events on the day or later change nothing in the features with which the day begins."""
    earlier = [event for event in events if event[2] // DAY < day] or [(0, 0, 119 * DAY)]
    np.testing.assert_array_equal(
        trends_of(events).features([day]), trends_of(earlier).features([day])
    )


def test_trends_go_on_from_a_file(tmp_path):
    """What a checkpoint keeps, with new events added, is what both logs together give."""
    first, second = [(0, 1, DAY), (1, 1, DAY), (0, 2, 2 * DAY)], [(2, 1, 2 * DAY), (3, 1, 5 * DAY)]
    trends_of(first).save(tmp_path / "trends.parquet")
    together = Trends.load(tmp_path / "trends.parquet", 6).plus(trends_of(second))
    np.testing.assert_array_equal(
        together.features([3, 6]), trends_of(first + second).features([3, 6])
    )


def test_what_a_state_began_anew_from_is_no_new_fashion():
    """Steps that a restart tells again are counted where they were told first, and not on the day of the restart."""
    none, all_liked = np.full(3, -1, np.int64), np.ones(3, np.bool_)
    items, times = np.array([4, 5, 6], np.int64), np.array([9 * DAY, 9 * DAY, 9 * DAY], np.int64)
    history = History(items, np.zeros(3, np.int64), all_liked, none, ~all_liked, times, told=2)
    found = popularity_of([history], 10)
    assert (found.day.tolist(), found.row.tolist(), found.users.tolist()) == ([9], [6], [1])


def test_a_table_of_days_looks_up_the_day_and_the_last_one_for_later_ones():
    """Biases by table are w · f of the point's own day, and of the last known day beyond it."""
    trends, weights = (
        trends_of([(0, 1, 3 * DAY), (1, 2, 9 * DAY)]),
        torch.arange(FEATURES, dtype=torch.float32),
    )
    found = TrendTable(trends, torch.device("cpu")).biases(np.array([9, 3, 50, 10]), weights)
    expected = torch.from_numpy(trends.features([9, 3, 10, 10])) @ weights
    torch.testing.assert_close(found, expected)


def test_the_network_follows_the_trend_and_knows_a_newcomer():
    """Biases are b + w · f of the day, and an item nobody had has the features of nobody's."""
    network = PolicyNetwork(
        Config(dim=4, state=4, hidden=8), torch.randn(6, 3), torch.empty(0, 3), 1
    )
    trends = trends_of([(0, 1, DAY), (1, 1, DAY), (2, 0, DAY)])
    network.follow(trends, 2)
    with torch.no_grad():
        biases = network.biases()
    assert biases.argmax() == 1
    assert biases[5] < biases[0] < biases[1]
    torch.testing.assert_close(network.new_item, network.trend[5], atol=0.2, rtol=0)


def test_without_a_table_the_supervision_sees_the_scores_that_the_policy_has():
    """Beside the policy gradient the cross-entropy is of the network's own scores, its trend included."""
    torch.manual_seed(0)
    config = Config(dim=4, state=4, hidden=8)
    network = PolicyNetwork(config, torch.randn(6, 3), torch.empty(0, 3), 1).eval()
    network.follow(trends_of([(0, 1, DAY), (1, 1, DAY), (2, 0, DAY)]), 2)
    ((batch, asked),) = lessons([history([4])], config, True, torch.device("cpu"), None)
    with torch.no_grad():
        scores = network.logits(network.users(torch.zeros(4)), network.items())
        torch.testing.assert_close(
            CrossEntropy(network, config, True)(batch, asked), -scores.log_softmax(-1)[4]
        )


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
    q = linear_init.factors([history(np.flatnonzero(row)) for row in x], 12, 11)
    gram = x.T @ x
    expected = np.linalg.solve(gram + linear_init.RIDGE * np.eye(12), gram)
    np.testing.assert_allclose(q @ q.T, expected, atol=0.01)


def test_the_network_starts_as_the_linear_recommender():
    """With the residuals alone, users' scores rank as Σ_j q_j · q_i does when nothing is forgotten."""
    rng = np.random.default_rng(1)
    rows = [rng.choice(12, 5, replace=False) for _ in range(60)]
    q = linear_init.factors([history(each) for each in rows], 12, 6)
    network = PolicyNetwork(
        Config(dim=6, state=6, hidden=12), torch.zeros(12, 3), torch.empty(0, 3), 1
    ).eval()
    linear_init.begin(network, q)
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


def test_an_empty_log_starts_nowhere():
    """Without a liked event there are no factors, and the network stays as it was."""
    q = linear_init.factors([history([])], 5, 4)
    assert q.shape == (5, 0)
    network = PolicyNetwork(
        Config(dim=4, state=4, hidden=8), torch.zeros(5, 3), torch.empty(0, 3), 1
    )
    before = network.w2.clone()
    linear_init.begin(network, q)
    torch.testing.assert_close(network.w2, before)


def test_a_log_without_a_like_is_an_error(tmp_path):
    """Training on nothing but dislikes says what was expected, instead of writing a policy that learned nothing."""
    ids = [f"item {at}" for at in range(4)]
    shown = np.arange(40, dtype=np.int64)
    log = Interactions(
        shown % 5, shown % 4, shown, np.full(40, -1.0, np.float32), np.zeros(40, np.int64), np.full(40, -1),
        [str(user) for user in range(5)], ["dislike"], [],
    )  # fmt: skip
    with pytest.raises(TableError, match="expected at least one reward above 0"):
        train(
            Catalogue(ids, ids, [{"id": one} for one in ids]), log, tmp_path, Config(), app="test"
        )
