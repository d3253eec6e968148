"""The baselines of the ranking benchmark against plain references, and its protocols."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import quality
from bench.ranking.baselines import (
    DAY,
    EASE,
    IALS,
    Blend,
    Content,
    ItemKNN,
    Popular,
    Random,
    RecentPopular,
)
from bench.ranking.candidates import BASELINES, BUDGET, Candidate
from bench.ranking.data import Log
from bench.ranking.protocols import Queries, leave_one_out, slates, temporal, top
from tests.support.naive_ranking import (
    naive_als_loss,
    naive_cosine,
    naive_item_knn,
    naive_slate,
    naive_tfidf,
)

pytestmark = pytest.mark.lab

TEXTS = ["red lamp", "red red box", "blue box", "", "green lamp stand", "blue lamp"]
PERSONAL = [ItemKNN(3, 1.0), EASE(1.0), IALS(4, 0.1, 0.01), Blend(1.0, 1.0, 0.01)]


def log_of(rng: np.random.Generator, events: int = 60, users: int = 8, items: int = 6) -> Log:
    """Return a log of random events, its items numbered in the order of their first appearance."""
    item = rng.integers(0, items, events)
    names = list(dict.fromkeys(item.tolist()))
    renumbered = np.array([names.index(name) for name in item.tolist()], np.int64)
    time = np.sort(rng.integers(0, 10 * DAY, events))
    return Log(rng.integers(0, users, events), renumbered, time, TEXTS[: len(names)])


def queries_of(histories: list[list[int]], texts: list[str], now: int = 0) -> Queries:
    """Return queries of users with these histories, all at one time."""
    items = [np.array(rows, np.int64) for rows in histories]
    return Queries(
        np.arange(len(items)), items, [0 * rows for rows in items], np.full(len(items), now), texts
    )


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0, -np.inf]), min_size=1, max_size=12),
    st.integers(1, 15),
)
def test_the_best_columns_are_those_of_a_full_sort(row, k):
    """Ties go to the lower column, and excluded columns leave -1, whatever the width."""
    assert top(np.array([row], np.float32), k)[0].tolist() == naive_slate(row, k)
    wide = np.tile(row, 30) + np.repeat(np.arange(30) % 7, len(row))
    assert top(wide[None].astype(np.float32), k)[0].tolist() == naive_slate(wide.tolist(), k)


def test_invalid_scores_are_refused():
    """A NaN, too many columns or another type is an error that names the model."""
    benchmark = temporal("tiny", log_of(np.random.default_rng(0)), 5 * DAY, 8 * DAY)

    class Broken(Random):
        name = "broken"

        def scores(self, queries):
            return np.full((len(queries), self.width), np.nan, self.type)

    model = Broken()
    for model.width, model.type, message in [
        (2, np.float32, "NaN"),
        (99, np.float32, "broken"),
        (2, float, "broken"),
    ]:
        with pytest.raises(ValueError, match=message):
            slates(model, benchmark.report)


@pytest.mark.parametrize("seed", range(5))
def test_item_knn_equals_its_definition(seed):
    """Similarities counted user by user, cut and summed, give the same scores."""
    rng = np.random.default_rng(seed)
    log = log_of(rng, events=40)
    histories = [set(log.item[log.user == user].tolist()) for user in range(8)]
    n = len(log.texts)
    similar = naive_item_knn(histories, n, n, 2.0)
    found = (
        ItemKNN(n, 2.0)
        .fit(log, 0)
        .scores(queries_of([sorted(rows) for rows in histories], log.texts))
    )
    expected = [[sum(similar[i][j] for j in rows) for i in range(n)] for rows in histories]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    kept = ItemKNN(2, 2.0).fit(log, 0).similar.toarray()
    np.testing.assert_allclose(
        kept.sum(axis=0), [sum(sorted(row)[-2:]) for row in similar], atol=1e-5
    )


def test_ials_finds_the_minimum_of_its_loss():
    """No small step from the solved users lowers the loss that is summed pair by pair."""
    rng = np.random.default_rng(0)
    log = log_of(rng)
    histories = [sorted(set(log.item[log.user == user].tolist())) for user in range(8)]
    model = IALS(3, 0.2, 0.05).fit(log, 0)
    users = model.solve([np.array(rows) for rows in histories], model.items).astype(float)

    def loss(factors: np.ndarray) -> float:
        return naive_als_loss([set(rows) for rows in histories], factors, model.items, 0.2, 0.05)

    minimum = loss(users)
    for _ in range(30):
        assert loss(users + 1e-2 * rng.standard_normal(users.shape)) > minimum
    np.testing.assert_allclose(
        model.scores(queries_of(histories, log.texts)), users @ model.items.T, atol=1e-5
    )


def test_recent_popularity_counts_the_days_before_the_query():
    """Events at the query or before its window do not count; each query has its own window."""
    log = Log(
        np.arange(4), np.array([0, 1, 1, 0]), np.array([0, DAY, 2 * DAY, 3 * DAY]), ["a", "b"]
    )
    queries = queries_of([[], [], []], log.texts)
    queries.now[:] = [3 * DAY, 4 * DAY, 2 * DAY]
    assert RecentPopular(2).fit(log, 0).scores(queries).tolist() == [[0, 2], [1, 1], [1, 1]]
    assert Popular().fit(log, 0).scores(queries).tolist() == [[2, 2]] * 3


def test_content_is_the_cosine_of_tfidf_vectors_and_scores_new_items():
    """Scores equal the definition; no text, no history and unknown words score 0."""
    log = Log(np.zeros(6, np.int64), np.arange(6), np.arange(6), TEXTS)
    vectors = naive_tfidf(TEXTS)
    histories = [[0, 0, 4], [2], [3], []]
    found = (
        Content("words", 100)
        .fit(log, 0)
        .scores(queries_of(histories, [*TEXTS, "red unheard-of lamp", "unheard-of"]))
    )
    for row, history in zip(found, histories, strict=True):
        profile: dict[str, float] = {}
        for item in history:
            for word, value in vectors[item].items():
                profile[word] = profile.get(word, 0.0) + value
        np.testing.assert_allclose(
            row[:6], [naive_cosine(profile, vector) for vector in vectors], atol=1e-6
        )
    assert found[0, 6] > 0.5
    assert found[0, 7] == 0.0
    assert Content("words", 1).fit(log, 0).scores(queries_of([[0, 2]], TEXTS))[0].argmax() == 2


def test_the_blend_lies_between_its_parts():
    """Without weight it ranks as EASE does, with a huge one as recent popularity does."""
    log = log_of(np.random.default_rng(3))
    queries = queries_of([[0, 1], [2]], log.texts, now=10 * DAY)
    personal, popular = (
        EASE(5.0).fit(log, 0).scores(queries),
        RecentPopular(5).fit(log, 0).scores(queries),
    )
    for damped in (False, True):
        alone = Blend(5.0, 5, 0.0, damped).fit(log, 0).scores(queries)
        assert top(alone, 6).tolist() == top(personal, 6).tolist()
        swamped = Blend(5.0, 5, 1e4, damped).fit(log, 0).scores(queries)
        for row, counts in zip(top(swamped, 6), popular, strict=True):
            assert (np.diff(counts[row]) <= 0).all()


@pytest.mark.parametrize("model", PERSONAL, ids=lambda model: model.name)
def test_every_personal_baseline_solves_the_checkerboard(model):
    """The missing item of the user's own colour is ranked first."""
    pairs = [
        (user, item)
        for user in range(20)
        for item in range(12)
        if user % 2 == item % 2 and item != user % 12
    ]
    user, item = np.array(pairs).T
    log = Log(user, item, np.arange(len(user)), [""] * 12)
    histories = [item[user == number].tolist() for number in range(12)]
    scores = model.fit(log, 0).scores(queries_of(histories, log.texts, now=len(user)))
    for number, (row, had) in enumerate(zip(scores, histories, strict=True)):
        row[had] = -np.inf
        assert row.argmax() == number


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_score_new_users_and_keep_the_budget(name):
    """New users get finite scores from every baseline; none has more settings than the budget."""
    candidate = BASELINES[name]
    assert 1 <= len(candidate.settings) <= BUDGET
    log = log_of(np.random.default_rng(1))
    model = candidate.build(**candidate.settings[0])
    model.fit(log, 0)
    scores = model.scores(queries_of([[], [0]], log.texts, now=10 * DAY))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_temporal_protocol_leaks_nothing(seed):
    """Train ends before the query, tune before the report; relevant items are new and later."""
    log = log_of(np.random.default_rng(seed), events=80)
    benchmark = temporal("tiny", log, 4 * DAY, 7 * DAY)
    for task, start, stop in (
        (benchmark.tune, 4 * DAY, 7 * DAY),
        (benchmark.report, 7 * DAY, 11 * DAY),
    ):
        assert task.train.time.max() < start
        assert (task.queries.now == start).all()
        known, main = len(task.train.texts), task.main
        assert known == task.train.item.max() + 1
        expected = {}
        for user in range(8):
            mine = log.user == user
            past = set(log.item[mine & (log.time < start)].tolist())
            later = set(log.item[mine & (log.time >= start) & (log.time < stop)].tolist())
            fresh = {item for item in later - past if item < known}
            if past and fresh:
                expected[user] = fresh
        found = dict(zip(task.queries.user[main.users].tolist(), main.relevant, strict=True))
        assert found == expected
        assert max((max(times, default=0) for times in task.queries.times), default=0) < start


def test_cold_items_and_cold_users_have_views_of_their_own():
    """A new item is a candidate only in views that say so, and a new user is not a warm user."""
    user, item = np.array([0, 1, 0, 1, 2]), np.array([0, 1, 2, 0, 1])
    log = Log(user, item, np.array([0, 1, 10, 11, 12]), ["a lamp", "a box", "a lamp too"])
    views = {view.name: view for view in temporal("tiny", log, 1, 5).report.views}
    assert views["warm users, seen removed"].relevant == [{0}]
    assert views["warm users, all items"].relevant == [{0}]
    assert views["warm users, all items"].candidates.all()
    assert views["cold items among cold items"].candidates.tolist() == [False, False, True]
    assert views["cold items among all items"].relevant == [{2}]
    assert views["cold users"].relevant == [{1}]
    task = temporal("tiny", log, 1, 5).report
    found = slates(Content("words", 9).fit(task.train, 0), task)
    assert found["cold items among cold items"].tolist() == [[2, -1, -1]]
    assert 2 not in found["warm users, seen kept"]
    assert set(
        slates(EASE(1.0).fit(task.train, 0), task)["cold items among all items"][0].tolist()
    ) == {1, -1}


def test_leave_one_out_asks_for_the_last_event_and_tunes_on_the_one_before():
    """Short histories train without being queried; ties in time keep the order of the log."""
    user = np.array([0, 1, 0, 0, 1, 2, 0, 1])
    log = Log(
        user, np.array([0, 1, 2, 3, 0, 4, 1, 3]), np.array([0, 1, 2, 5, 5, 5, 5, 6]), [""] * 5
    )
    benchmark = leave_one_out("tiny", log, clocked=True)
    assert [
        view.relevant for task in (benchmark.tune, benchmark.report) for view in task.views
    ] == [
        [{3}, {0}],
        [{1}, {3}],
    ]
    assert [rows.tolist() for rows in benchmark.tune.queries.items] == [[0, 2], [1]]
    assert [rows.tolist() for rows in benchmark.report.queries.items] == [[0, 2, 3], [1, 0]]
    assert (len(benchmark.tune.train), len(benchmark.report.train)) == (4, 6)


def test_tuning_keeps_the_best_setting_and_tables_put_the_best_first():
    """The right window wins; the worse model's row shows a negative paired difference."""
    rng = np.random.default_rng(0)
    time = np.sort(rng.integers(0, 10 * DAY, 3000))
    trending = 3 * (time // DAY) + rng.integers(0, 6, 3000)
    names = list(dict.fromkeys(trending.tolist()))
    log = Log(
        rng.integers(0, 60, 3000),
        np.array([names.index(at) for at in trending]),
        time,
        [""] * len(names),
    )
    benchmark = temporal("fashion", log, 7 * DAY, 8.5 * DAY)
    candidate = Candidate(RecentPopular, [{"days": 9}, {"days": 0.5}])
    trials, kept = quality.tune("recent popular", candidate, benchmark.tune)
    assert kept == {"days": 0.5}
    assert [trial["settings"] for trial in trials] == candidate.settings
    results = {
        "random": quality.measure(
            "random", Candidate(Random, seeded=True), {}, benchmark.report, 3
        ),
        "recent popular": quality.measure("recent popular", candidate, kept, benchmark.report, 3),
    }
    assert (results["random"].seeds, results["recent popular"].seeds) == (3, 1)
    rows = list(quality.table(benchmark, results, set()))
    assert rows[0]["model"] == "recent popular"
    assert all(
        set(row) == {"data", "model", "metric", "value", "low", "high", "seeds"} for row in rows
    )
    differences = [row for row in rows if row["metric"].startswith("ndcg@10 difference")]
    assert differences[0]["model"] == "random"
    assert differences[0]["high"] < 0


def test_the_default_path_fits_what_training_without_a_flag_fits():
    """It ranks by settings that it chose itself, new items included."""
    from bench.ranking.ours_by_default import SanderlingByDefault

    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(12), 8)
    item = np.concatenate([np.arange(6), rng.integers(0, 6, 90)])
    time = np.sort(rng.integers(0, 40 * DAY, 96))
    log = Log(user[rng.permutation(96)], item, time, [""] * 6)
    model = SanderlingByDefault().fit(log, 0)
    assert model.choice.rows
    found = model.scores(queries_of([[0, 1], []], [""] * 7, now=41 * DAY))
    assert found.shape == (2, 7)
    assert np.isfinite(found).all()
