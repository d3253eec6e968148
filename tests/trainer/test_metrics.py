"""Ranking metrics, bootstrap intervals, baselines and trajectory replay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling_trainer.evaluation import metrics
from sanderling_trainer.evaluation.baselines import EASE, Popularity
from sanderling_trainer.evaluation.intervals import mean, ratio, ratio_difference
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, replay
from tests.support.naive import naive_ndcg

pytestmark = pytest.mark.lab


@settings(deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12), st.sets(st.integers(0, 15), min_size=1))
def test_metrics_equal_their_definitions(order, k, relevant):
    """nDCG, recall and reciprocal rank equal their definitions, and a perfect slate scores 1."""
    for slate in (list(order)[:k], list(order)[: (k + 1) // 2]):
        assert metrics.ndcg(slate, relevant, k) == pytest.approx(naive_ndcg(slate, relevant, k))
    slate = list(order)[:k]
    assert metrics.recall(slate, relevant) == len(set(slate) & relevant) / len(relevant)
    hits = [place for place, item in enumerate(slate, 1) if item in relevant]
    assert metrics.reciprocal_rank(slate, relevant) == (1 / hits[0] if hits else 0.0)
    assert metrics.ndcg(sorted(relevant), relevant, len(relevant)) == pytest.approx(1.0)


@given(st.permutations(range(12)), st.integers(1, 6), st.sets(st.integers(0, 15), min_size=1))
def test_metrics_per_user_use_the_first_k_items(order, k, relevant):
    """Metrics at k ignore what stands below rank k, except recall at a larger depth."""
    deep, cut = (
        metrics.per_user([slate], [relevant], k, 2 * k) for slate in (list(order), list(order)[:k])
    )
    for name in (f"ndcg@{k}", f"recall@{k}", f"hit_rate@{k}", f"mrr@{k}"):
        assert deep[name] == cut[name]
    assert deep[f"recall@{2 * k}"][0] == len(set(list(order)[: 2 * k]) & relevant) / len(relevant)
    assert deep[f"ndcg@{k}"][0] == pytest.approx(naive_ndcg(list(order)[:k], relevant, k))


def test_novelty_is_the_mean_self_information():
    """Items with shares of 1/2 and 1/8 carry one and three bits; an empty slate carries none."""
    popularity = np.array([0.5, 0.125, 0.375])
    assert metrics.novelty([0, 1], popularity) == 2.0
    assert metrics.novelty([], popularity) == 0.0


def test_users_without_a_slate_or_relevant_items_are_counted_not_scored():
    """Users who cannot be scored appear in the counts; without any user it is an error."""
    slates, relevant = {"a": [1, 2], "b": [3, 4]}, {"a": {1}, "c": {9}}
    result = metrics.evaluate(slates, relevant, 2, 10, np.random.default_rng(0))
    assert (result["users"], result["users_without_slate"], result["users_without_relevant"]) == (
        1,
        1,
        1,
    )
    assert result["coverage@2"] == 0.2
    short = metrics.evaluate({"a": [1]}, {"a": {1, 2}}, 2, 10, np.random.default_rng(0))
    assert short["ndcg@2"]["value"] < 1.0
    with pytest.raises(metrics.NothingToEvaluateError, match="at least one user"):
        metrics.evaluate({"b": [3]}, {"c": {9}}, 2, 10, np.random.default_rng(0))


def test_bootstrap_intervals_cover_the_truth():
    """About 95 % of 200 intervals hold the truth; a paired difference is narrower than a mean."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        result = mean(rng.exponential(1.0, 60), rng)
        inside += result.low <= 1.0 <= result.high
    assert 175 <= inside <= 199
    users, ones = rng.exponential(1.0, 300), np.ones(300)
    noise = 0.01 * rng.standard_normal(300)
    difference = ratio_difference((users + 0.1 + noise, ones), (users, ones), rng)
    alone = ratio(users, ones, rng)
    assert difference.low > 0.09
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)


def test_ease_is_the_closed_form_and_finds_pairs():
    """EASE solves the ridge regression with a zero diagonal and ranks companions first."""
    rng = np.random.default_rng(0)
    histories = [np.array([2 * pair, 2 * pair + 1]) for pair in rng.integers(0, 5, 200)]
    model = EASE(10.0).fit(histories, 10)
    x = np.zeros((200, 10))
    for user, rows in enumerate(histories):
        x[user, rows] = 1.0
    gradient = x.T @ (x @ model.weights - x) + 10.0 * model.weights
    np.testing.assert_allclose(gradient - np.diag(np.diag(gradient)), 0.0, atol=1e-2)
    assert not np.diag(model.weights).any()
    scores = model.scores([np.array([4])])[0]
    assert scores.argmax() == 5
    assert Popularity().fit(histories, 10).scores([np.array([4])])[0].sum() == 400
    with pytest.raises(ValueError, match="at most"):
        EASE().fit([], 30_000)


def test_replays_click_what_was_liked_later_and_never_show_seen_items():
    """A perfect policy is clicked while likes remain; earlier items are never shown."""
    trajectory = Trajectory(
        user=0,
        before=np.array([0, 1]),
        before_kinds=np.zeros(2, np.int64),
        later=np.array([2, 3, 4]),
        kinds=np.zeros(3, np.int64),
        liked=np.array([True, False, True]),
        contexts=np.full(3, -1),
    )
    scores = np.zeros((1, 8), np.float32)
    scores[0, [4, 2, 0]] = [3.0, 2.0, 9.0]
    result = replay(trajectory, scores, 2, 4, 0.0, np.random.default_rng(0))
    assert result.items.tolist() == [[4, 2], [4, 3], [4, 5]]
    assert result.clicks.tolist() == [[True, True], [True, False], [True, False]]
    explored = replay(trajectory, scores, 6, 6, 1.0, np.random.default_rng(0))
    assert not np.isin(explored.items[0], [0, 1]).any()
    assert (explored.items[2] == -1).sum() == 2
