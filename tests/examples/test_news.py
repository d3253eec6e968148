"""The example of headlines: which tests it takes, and how it chooses among their arms."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("sklearn")

from examples.news.news import best_arms, read, relative, report, tuned_tfidf
from sanderling_trainer.evaluation.simulators.ab_tests import ABTests

pytestmark = pytest.mark.lab

COLUMNS = ("clickability_test_id", "headline", "impressions", "clicks", "test_week")
PACKAGES = [
    ("a", "One", 600, 6, "201301"),
    ("a", "One", 600, 18, "201302"),
    ("a", "Two", 600, 30, "201301"),
    ("b", "Assigned wrongly", 600, 6, "201401"),
    ("b", "Then", 600, 6, "201401"),
    ("c", "Seen by far too many", 900, 6, "201403"),
    ("c", "Seen by few", 600, 6, "201403"),
    ("d", "Alone", 600, 6, "201403"),
    ("d", "Alone", 600, 6, "201403"),
    ("e", "Reported", 600, 6, "201435"),
    ("e", "Beside it", 600, 12, "201442"),
    ("f", "After", 600, 6, "201443"),
    ("f", "All", 600, 6, "201443"),
]


def made(stories: int, word: str) -> ABTests:
    """Return tests of three headlines, the one with a word clicked three times as often."""
    texts = [
        f"{'plain' if arm else word} story {at} arm {arm}"
        for at in range(stories)
        for arm in range(3)
    ]
    clicks = np.where(np.arange(3 * stories) % 3 == 0, 30, 10)
    return ABTests(texts, np.repeat(np.arange(stories), 3), np.full(3 * stories, 1000), clicks)


def test_read_merges_equal_headlines_and_leaves_out_tests_that_say_nothing(tmp_path, monkeypatch):
    """Left are tests of two headlines or more, evenly shown, of weeks that count; by last week."""
    path = tmp_path / "upworthy" / "packages.csv"
    path.parent.mkdir()
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *PACKAGES])
    monkeypatch.setenv("SANDERLING_DATA", str(tmp_path))

    past, later = read()
    found = zip(past.texts, past.impressions.tolist(), past.clicked.tolist(), strict=True)
    assert sorted(found) == [("One", 1200, 24), ("Two", 600, 30)]
    assert sorted(later.texts) == ["Beside it", "Reported"]


def test_the_best_arm_of_each_test_has_the_highest_score():
    """One arm of each test gets all of the probability, wherever it stands."""
    tests = made(2, "best")
    assert best_arms(np.array([0, 2, 1, 5, 4, 3]), tests).tolist() == [0, 1, 0, 1, 0, 0]


def test_relative_rates_are_compared_within_a_test():
    """The rates of a test, weighted by what was expected, have the mean 0."""
    target, clicks = relative(made(4, "best"))
    assert target[:3] == pytest.approx([0.8, -0.4, -0.4])
    assert clicks == pytest.approx(1000 * 50 / 3000)


def test_the_tuned_ridge_finds_a_word_that_is_clicked():
    """On new stories it prefers the headlines with the word, and the report says by how much."""
    past, later = made(40, "puppies"), made(5, "puppies")
    chosen = best_arms(tuned_tfidf(past, later), later)
    assert later.direct(chosen) == pytest.approx(0.03)

    figures = report({"ours": chosen, "uniform": later.uniform()}, later)
    assert figures["sanderling"] == pytest.approx(0.8)
    assert figures["baseline"] == pytest.approx(0.0)
    assert figures["interval"] == pytest.approx([0.8, 0.8])
