"""Ranking metrics, intervals, baselines and replays."""

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
def test_metrics_per_user_look_as_deep_as_they_are_asked(order, k, relevant):
    """Everything at k ignores what stands below k, except the deeper recall."""
    deep, cut = (
        metrics.per_user([slate], [relevant], k, 2 * k) for slate in (list(order), list(order)[:k])
    )
    for name in (f"ndcg@{k}", f"recall@{k}", f"hit_rate@{k}", f"mrr@{k}"):
        assert deep[name] == cut[name]
    assert deep[f"recall@{2 * k}"][0] == len(set(list(order)[: 2 * k]) & relevant) / len(relevant)
    assert deep[f"ndcg@{k}"][0] == pytest.approx(naive_ndcg(list(order)[:k], relevant, k))


def test_novelty_is_the_mean_surprise():
    """Items of a half and an eighth surprise by one and three bits; an empty slate is no surprise."""
    chance = np.array([0.5, 0.125, 0.375])
    assert metrics.novelty([0, 1], chance) == 2.0
    assert metrics.novelty([], chance) == 0.0


def test_users_who_cannot_be_judged_are_counted_not_scored():
    """A user without a slate or without anything liked later is named in the counts; nobody at all is an error."""
    slates, relevant = {"a": [1, 2], "b": [3, 4]}, {"a": {1}, "c": {9}}
    found = metrics.evaluate(slates, relevant, 2, 10, np.random.default_rng(0))
    assert (found["users"], found["users_without_slate"], found["users_without_relevant"]) == (
        1,
        1,
        1,
    )
    assert found["coverage@2"] == 0.2
    short = metrics.evaluate({"a": [1]}, {"a": {1, 2}}, 2, 10, np.random.default_rng(0))
    assert short["ndcg@2"]["value"] < 1.0
    with pytest.raises(metrics.NothingToJudgeError, match="at least one user"):
        metrics.evaluate({"b": [3]}, {"c": {9}}, 2, 10, np.random.default_rng(0))


def test_intervals_cover_the_truth():
    """Of 200 intervals of a mean of 60 users about 95 % hold the truth; a paired difference is narrower than a mean."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        found = mean(rng.exponential(1.0, 60), rng)
        inside += found.low <= 1.0 <= found.high
    assert 175 <= inside <= 199
    users, ones = rng.exponential(1.0, 300), np.ones(300)
    noise = 0.01 * rng.standard_normal(300)
    apart = ratio_difference((users + 0.1 + noise, ones), (users, ones), rng)
    alone = ratio(users, ones, rng)
    assert apart.low > 0.09
    assert apart.high - apart.low < 0.1 * (alone.high - alone.low)


def test_ease_is_the_closed_form_and_finds_pairs():
    """EASE's weights solve the constrained ridge regression, have no diagonal, and rank an item's companion first."""
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


def test_replays_click_what_was_liked_later_and_never_show_the_seen():
    """A perfect foresight is clicked at every step while likes remain; items had before are never shown."""
    journey = Trajectory(
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
    found = replay(journey, scores, 2, 4, 0.0, np.random.default_rng(0))
    assert found.items.tolist() == [[4, 2], [4, 3], [4, 5]]
    assert found.clicks.tolist() == [[True, True], [True, False], [True, False]]
    explored = replay(journey, scores, 6, 6, 1.0, np.random.default_rng(0))
    assert not np.isin(explored.items[0], [0, 1]).any()
    assert (explored.items[2] == -1).sum() == 2
