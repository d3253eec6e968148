"""Choosing settings by a log: statistics, inner windows, tuned peers, and the choice itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sanderling_quantize.checkpoint import read_lineage
from sanderling_trainer.cli.choice_table import trained_text
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.tables import Interactions, read_catalog, read_interactions
from sanderling_trainer.evaluation import metrics
from sanderling_trainer.evaluation.baselines import RecentPopularity, blend, standardized
from sanderling_trainer.evaluation.inner_windows import (
    Window,
    best_rows,
    cut_after,
    is_ordinal,
    last_events,
    windows,
)
from sanderling_trainer.evaluation.peers import GRIDS, grid, tune_peers
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.choose_settings import best_epoch, candidates, choose
from sanderling_trainer.policy.fit import TextVectors, TrainingPart, fit_policy, initial_network
from sanderling_trainer.policy.log_statistics import LogStatistics
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.rollout import scores_at_cut
from sanderling_trainer.policy.train import train
from sanderling_trainer.policy.train_options import SETTINGS, free_settings
from tests.support.worlds import write_checkerboard, write_language_model

pytestmark = pytest.mark.lab

ITEMS = 12
TINY = Config(dim=8, state=12, hidden=10, batch_events=64, pool=10)
HOUR = 3600


def log_of(events: list[tuple[int, int, int]]) -> Interactions:
    """Return a log of (user, item, second), every event a like."""
    user, item, time = np.array(sorted(events, key=lambda event: event[2]), np.int64).T
    n = len(user)
    return Interactions(
        user, item, time, np.ones(n, np.float32), np.zeros(n, np.int64), np.full(n, -1),
        [str(code) for code in range(int(user.max()) + 1)], ["like"], [],
    )  # fmt: skip


def shop(rng: np.random.Generator, users: int = 24) -> Interactions:
    """Return visits of five items, three a user and ten days apart; even users like even items."""
    events = []
    for user in range(users):
        for visit in range(3):
            start = int(rng.integers(0, 5 * DAY)) + 10 * visit * DAY
            basket = rng.permutation(ITEMS // 2)[:5]
            events += [(user, int(2 * item + user % 2), start) for item in basket]
    return log_of(events)


def last_window(log: Interactions, rng: np.random.Generator) -> Window:
    return windows(log, False, rng)[-1]


def vectors() -> TextVectors:
    return TextVectors(torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(0)),
                       torch.empty(0, 6))  # fmt: skip


def test_statistics_tell_visits_from_single_events():
    """Baskets are visits whatever the order inside; a history without gaps is single events."""
    basket = LogStatistics.of(shop(np.random.default_rng(0)))
    assert basket.may_visit
    assert not basket.may_be_single
    assert basket.repeats
    assert basket.later == pytest.approx(2 / 3)
    assert basket.tied == pytest.approx(4 / 5 * 15 / 14)

    steady = LogStatistics.of(
        log_of([(u, (u + at) % ITEMS, 100_000 * u + 60 * at) for u in range(9) for at in range(9)])
    )
    assert not steady.may_visit
    assert steady.may_be_single
    assert not steady.repeats


@pytest.mark.parametrize(("gap", "expected"), [(2 * HOUR, 6.0), (12 * HOUR, 1.0)])
def test_a_visit_ends_where_few_gaps_lie(gap, expected):
    """Gaps of half a day make visits shorter; without gaps near six hours it is six."""
    events = [(u, at % ITEMS, u + at * gap) for u in range(5) for at in range(8)]
    hours = LogStatistics.of(log_of(events)).visit_hours
    lengths = np.full(35, gap / HOUR)
    near = (lengths >= hours / 2) & (lengths < 2 * hours)
    assert not near.any()
    assert hours <= 6.0 if expected == 1.0 else hours == expected or hours > 4.0


def test_ranks_and_tied_seconds_are_ordinal_and_dates_are_not():
    """Times that only order a user's own events are told from a calendar."""
    ranks = [(user, at, at) for user in range(20) for at in range(3 + user % 4)]
    tied = [(user, at, 7) for user in range(20) for at in range(4)]
    assert is_ordinal(log_of(ranks))
    assert is_ordinal(log_of(tied))
    assert not is_ordinal(shop(np.random.default_rng(0)))


def test_windows_in_time_cut_the_log_and_nothing_later_is_in_the_past():
    """Each window's past ends before what is relevant; seen items count only with repeats."""
    log = shop(np.random.default_rng(1))
    for repeats in (False, True):
        found = windows(log, repeats, np.random.default_rng(0))
        assert [window.name for window in found] == ["70% to 80%", "80% to 90%", "90% to 100%"]
        for window in found:
            assert window.past.time.max() <= window.now
            for user, relevant in zip(window.users, window.relevant, strict=True):
                later = log.item[(log.user == user.user) & (log.time > window.now)]
                assert relevant <= set(later.tolist())
                assert repeats or not relevant & set(user.before.tolist())


def test_windows_of_an_ordinal_log_hide_each_users_last_events():
    """The window before the last hides two events of each user and asks for the first of them."""
    log = log_of([(user, (user + at) % ITEMS, at) for user in range(10) for at in range(5)])
    first, last = windows(log, False, np.random.default_rng(0))
    assert len(first.past) == 30
    assert len(last.past) == 40
    for window, place in ((first, 3), (last, 4)):
        for user, relevant in zip(window.users, window.relevant, strict=True):
            assert relevant == {(user.user + place) % ITEMS}


@pytest.mark.parametrize("ordinal", [False, True])
def test_a_cut_divides_the_log(ordinal):
    """Past and later events are all events; each user's own are cut in an ordinal log."""
    log = shop(np.random.default_rng(2))
    if ordinal:
        log = log_of([(user, at, at) for user in range(10) for at in range(10)])
    cut = cut_after(log, 0.8, 1.0)
    assert len(cut.past) + sum(len(user.later) for user in cut.users) == len(log)
    if ordinal:
        assert all(len(user.later) == 2 for user in cut.users)


def test_a_user_with_one_event_stays_in_the_past():
    """Hiding the last event leaves nobody with an empty history to learn from."""
    log = log_of([(0, 0, 0), (1, 0, 0), (1, 1, 1)])
    assert len(cut_after(log, 0.5, 1.0).past) == 2
    assert [user.user for user in last_events(log, 1).users] == [0, 1]


def test_the_windows_ndcg_is_that_of_a_full_sort():
    """Ties go to the lower row, as in the slates that `metrics` evaluates."""
    rng = np.random.default_rng(0)
    events = [
        (u, int(item), 10 * u + at)
        for u in range(9)
        for at, item in enumerate(rng.permutation(ITEMS)[:6])
    ]
    window = last_window(log_of(events), rng)
    scores = rng.integers(0, 4, (len(window.users), ITEMS)).astype(np.float32)
    slates = []
    for row, user in zip(scores.copy(), window.users, strict=True):
        row[user.before] = -np.inf
        slates.append(np.argsort(-row, kind="stable")[:10].tolist())
    expected = metrics.per_user(slates, window.relevant, 10)["ndcg@10"]
    np.testing.assert_allclose(window.ndcg(scores), expected)
    assert best_rows(np.array([1.0, 2.0, 2.0, 0.0]), 3).tolist() == [1, 2, 0]


def test_peers_are_tuned_by_the_mean_over_windows():
    """Each baseline stands once, at the setting with the highest mean, the best first."""
    found = tune_peers(
        windows(shop(np.random.default_rng(3)), True, np.random.default_rng(0)), ITEMS
    )
    assert {peer.name for peer in found} == set(GRIDS)
    assert [peer.mean for peer in found] == sorted((peer.mean for peer in found), reverse=True)
    for peer in found:
        assert peer.settings in grid(peer.name)
        assert len(peer.ndcg) == 3


def test_a_blend_adds_z_scores():
    """Scale and offset of neither part count."""
    rng = np.random.default_rng(0)
    personal = rng.random((3, 8)).astype(np.float32)
    counts = (
        RecentPopularity(2).fit(np.array([1, 1, 2]), np.array([0, DAY, DAY]), 8).counts(2 * DAY)
    )
    assert counts.tolist() == [0, 2, 1, 0, 0, 0, 0, 0]
    found = blend(7 * personal + 3, counts, 0.5)
    expected = standardized(personal) + 0.5 * standardized(counts[None])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_flags_fix_settings():
    """What is given is in every candidate, and two that then are the same count once."""
    statistics = LogStatistics.of(shop(np.random.default_rng(0)))
    assert [one.changes["visit_hours"] for one in candidates(statistics, TINY, SETTINGS)] == [6, 6]

    given = replace(TINY, visit_hours=0.0)
    single = candidates(statistics, given, free_settings({"visit_hours": 0.0}))
    assert all("visit_hours" not in one.changes for one in single)
    assert len(single) == 2

    given = replace(TINY, visit_hours=2.0, horizon_days=3.0, epochs=5)
    fixed = free_settings({"visit_hours": 2.0, "horizon_days": 3.0, "epochs": 5})
    (one,) = candidates(statistics, given, fixed)
    assert one.changes.keys() == {"dropout", "learning_rate"}


def test_a_sampled_catalog_has_candidates_of_its_own():
    """They have smaller batches, and where texts say nothing none hides residuals."""
    log = shop(np.random.default_rng(0))
    statistics = replace(LogStatistics.of(log), ordinal=True)
    full = candidates(statistics, TINY, SETTINGS)
    sampled = candidates(statistics, TINY, SETTINGS, is_sampled=True)
    assert [one.name for one in sampled] == [one.name for one in full]
    assert all("batch_events" not in one.changes for one in full)
    assert all(one.changes["batch_events"] < Config().batch_events for one in sampled)

    (one,) = candidates(statistics, TINY, SETTINGS, is_sampled=True, has_texts=False)
    assert one.changes["id_dropout"] == 0.0
    assert len(candidates(statistics, TINY, SETTINGS, has_texts=False)) == 2


def test_a_choice_says_what_it_tried():
    """A shop's log is learned in visits; policy and peers stand in one table with each window."""
    log = shop(np.random.default_rng(4))
    choice = choose(log, ITEMS, TINY, SETTINGS, vectors())
    assert choice.repeats
    assert choice.config.visit_hours == 6.0
    assert 0 <= choice.config.stop_after <= choice.config.epochs
    rows = choice.as_dict()["tried"]
    json.dumps(rows)
    compared = [row for row in rows if row["stage"] == "compared"]
    assert {row["model"] for row in compared} == {*GRIDS, "Sanderling"}
    assert all(len(row["windows"]) == 2 for row in compared)
    assert choice.loses == (compared[0]["model"] != "Sanderling")
    assert choose(log, ITEMS, TINY, SETTINGS, vectors()).config == choice.config


def test_the_start_that_was_measured_is_the_one_that_trains():
    """The nDCG of the linear start in the table is that of the network before its first step."""
    log = shop(np.random.default_rng(6))
    choice = choose(log, ITEMS, TINY, SETTINGS, vectors())
    (row,) = (row for row in choice.rows if row.name == "linear start with popularity")
    assert row.settings["gain"] == choice.config.gain

    for window in windows(log, choice.repeats, np.random.default_rng(TINY.seed)):
        part = TrainingPart(window.past, ITEMS, choice.repeats)
        network = initial_network(part, choice.config, vectors()).eval()
        network.set_popularity_day(part.popularity, part.end // DAY)
        scores = scores_at_cut(network, window.users, np.array([part.kinds.index("like")]))
        # Scores that are equal but for rounding may change places.
        assert row.ndcg[window.name].mean() == pytest.approx(window.ndcg(scores).mean(), abs=1e-3)


def test_scores_at_a_cut_are_those_of_each_user_alone():
    """Padding and order of the batch change nothing, and a new user has the empty state."""
    log = shop(np.random.default_rng(5))
    cut = cut_after(log, 0.4, 1.0)
    part = TrainingPart(cut.past, ITEMS, repeats=True)
    network = fit_policy(part, replace(TINY, epochs=1), vectors()).context.network
    users = [*cut.users, replace(cut.users[0], before=np.empty(0, np.int64),
                                 before_kinds=np.empty(0, np.int64))]  # fmt: skip
    codes = np.array([part.kinds.index("like")])
    together = scores_at_cut(network, users, codes)
    alone = np.concatenate([scores_at_cut(network, [user], codes) for user in users])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return folder, catalog, log and configuration of a checkerboard."""
    folder = tmp_path_factory.mktemp("choice")
    items, log = write_checkerboard(folder, users=30, items=20, steps=10)
    catalog = read_catalog(items)
    config = replace(TINY, language_model=str(write_language_model(folder / "model")), epochs=2)
    return folder, catalog, read_interactions(log, catalog), config


def test_what_ships_has_seen_the_whole_log(world):
    """With `refit` the checkpoint ends where the log ends; without it where the report begins."""
    folder, catalog, log, config = world
    ends = {}
    for refit in (True, False):
        out = folder / f"out-{refit}"
        train(catalog, log, out, config, app="t", choose=(), refit=refit, holdout=0.2)
        ends[refit] = checkpoint.load(out).metadata.log_to
    assert ends[True] == log.time.max()
    assert ends[False] == cut_after(log, 0.8, 1.0).now


def test_a_parent_numbers_releases_on(world, tmp_path):
    """Trained with a parent, a checkpoint has the next number; the first one is release 1."""
    _, catalog, log, config = world
    numbers = {}
    for parent in (0, 4):
        out = tmp_path / str(parent)
        train(catalog, log, out, config, app="t", choose=(), holdout=0, parent=parent)
        metadata = checkpoint.load(out).metadata
        numbers[parent] = (metadata.release, metadata.parent)
    assert numbers == {0: (1, 0), 4: (5, 4)}
    assert read_lineage(tmp_path / "4") == ("t", 5)


def test_metrics_and_checkpoint_hold_the_choice(world):
    """The table is in metrics.json, its settings in config.json, and the text says the cost."""
    folder, catalog, log, config = world
    trained = train(catalog, log, folder / "chosen", config, app="t", choose=("dropout", "ridge"))
    metrics_file = json.loads((folder / "chosen" / "metrics.json").read_text())
    assert metrics_file["choice"]["tried"]
    stored = checkpoint.load(folder / "chosen").config
    assert stored.dropout == metrics_file["choice"]["settings"]["dropout"] == 0.2
    text = trained_text(trained.metrics)
    assert "times one fit" in text
    assert ("LOSES" in text.splitlines()[0]) == trained.choice.loses


@pytest.mark.parametrize("times", [[0] * 60, [5] * 30 + list(range(30))], ids=["tied", "sale"])
def test_tied_times_train(times, world, tmp_path):
    """A log whose quantiles fall together trains, by the order of its rows."""
    *_, config = world
    catalog = world[1]
    rng = np.random.default_rng(0)
    log = log_of([(int(rng.integers(8)), int(rng.integers(20)), time) for time in times])
    trained = train(catalog, log, tmp_path / "out", config, app="t", choose=("dropout",))
    assert np.isfinite(trained.metrics["warm_start"]["loss"]).all()


@pytest.mark.parametrize(
    ("means", "expected"), [([0.2, 0.1, 0.3], 2), ([0.2, 0.197, 0.1], 1), ([0.2, 0.19, 0.1], 0)]
)
def test_a_start_that_is_hardly_better_is_trained(means, expected):
    """Within two per cent of the linear start the best trained epoch is taken."""
    assert best_epoch(np.array(means)) == expected
