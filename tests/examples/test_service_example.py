"""The parts of examples/service that decide what its figures say."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from examples.service.service import hand_over, less, read, split


def test_the_first_questions_of_each_answer_are_split_off():
    """No question is lost or in both parts, and each answer has at most so many in the first."""
    rows = [(str(at), "ab"[at % 3 == 0]) for at in range(20)]
    first, rest = split(rows, 4)
    assert Counter(answer for _, answer in first) == {"a": 4, "b": 4}
    assert sorted(first + rest) == sorted(rows)
    assert first == sorted(first, key=rows.index)


def test_a_tenth_is_handed_over_on_average():
    """The threshold of m past questions hands over at most a tenth of new ones, on average, and
    what is kept is as certain as the threshold at least."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        past, now = rng.random(48), rng.random(500)
        shares.append(hand_over((past > 0.5, past), (now > 0.5, now))["handed"])
    # The mean of so many draws has a standard error of .0025; by m + 1 = 49 it is 4/49 = .082.
    assert np.mean(shares) == pytest.approx(4 / 49, abs=0.01)


def test_the_gain_is_that_of_the_answers_kept():
    """Where all wrong answers are the least certain, the rest is right and the gain their share."""
    share = np.arange(100) / 100
    right = share >= 0.1
    found = hand_over((right, share), (right, share))
    assert found["rest"] == 1.0 - 1 / 91
    assert found["gain"][0] == pytest.approx(1.0 - 1 / 91 - 0.9)
    assert found["promised"] == pytest.approx(90 / 91)
    low, high = found["gain"][1:]
    assert low < found["gain"][0] < high


def test_equal_answers_differ_by_nothing():
    """The interval of a difference is paired: of the same answers it is 0 to 0."""
    right, ones = np.arange(50) % 3 > 0, np.ones(50)
    assert less((right, ones), (right, ones)) == [0.0, 0.0, 0.0]


def test_questions_that_teach_are_not_held_out(tmp_path, monkeypatch):
    """Of test.csv alone, each question is in one part, and held out are as many of each answer;
    beside train.csv all of test.csv is held out."""
    ids = [row[0] for row in csv.reader(_answers().splitlines())][1:]
    folder = tmp_path / "banking77"
    folder.mkdir()
    monkeypatch.setenv("SANDERLING_DATA", str(tmp_path))
    _write(folder / "test.csv", [(f"test {x} {at}", x) for x in ids for at in range(40)])
    monkeypatch.setattr("examples.service.service.web", _nothing)
    monkeypatch.setattr("examples.fetch.cache_folder", lambda: tmp_path / "cache")
    answers, answered, rounds, held_out = read(small=False)
    assert sorted(answers) == sorted(ids)
    assert set(Counter(x for _, x in held_out).values()) == {15}
    texts = [text for rows in (answered, held_out, *rounds) for text, _ in rows]
    assert len(texts) == len(set(texts)) == 40 * len(ids)

    _write(folder / "train.csv", [(f"train {x} {at}", x) for x in ids for at in range(10)])
    _, answered, rounds, held_out = read(small=False)
    assert len(held_out) == 40 * len(ids)
    assert all(text.startswith("train") for rows in (answered, *rounds) for text, _ in rows)


def _nothing(address: str) -> tuple:
    def load() -> bytes:
        raise OSError("no network")

    return address, load


def _answers() -> str:
    path = Path(__file__).parents[2] / "examples" / "service" / "answers.csv"
    return path.read_text(encoding="utf-8")


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "category"), *rows])
