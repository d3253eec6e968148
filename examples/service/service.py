"""Customer service: a question in words, the best answer template, or a person.

python examples/service/service.py [--small] [--out FOLDER]
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.collector import TOKEN, collector
from examples.fetch import fetch, web
from sanderling import Engine
from sanderling_quantize import quantize
from sanderling_trainer import retrain, train
from sanderling_trainer.evaluation.intervals import ratio_difference
from sanderling_trainer.policy.model.language_model import LanguageModel

SOURCE = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/"
# Of each answer, people have answered ANSWERED questions before; every NEW-th answer comes later.
ANSWERED, HELD_OUT, NEW, DEVICES, PERSON = 3, 15, 11, 6, 0.1
# Scores of answers that no thumb has taught yet are lower; by how much was tried on what teaches.
BOOST = [{"where": {"new": True}, "by": 3.5}]
BASELINES = {
    "nearest neighbours": (KNeighborsClassifier(), {"n_neighbors": [1, 3, 5, 10, 20]}),
    "logistic regression": (LogisticRegression(max_iter=300), {"C": [3.0, 10.0, 30.0]}),
}
# Texts, each with the id of its answer.
Rows = list[tuple[str, str]]


def split(rows: Rows, count: int) -> tuple[Rows, Rows]:
    """Return the first `count` questions of each answer, and the others."""
    seen, parts = Counter(), ([], [])
    for row in rows:
        parts[seen[row[1]] >= count].append(row)
        seen[row[1]] += 1
    return parts


def read(small: bool) -> tuple[dict[str, str], Rows, list[Rows], Rows]:
    """Return the answers, and questions: answered by people, of each round, and held out."""

    def rows(path: Path) -> Rows:
        with path.open(newline="", encoding="utf-8") as file:
            found = [tuple(row) for row in csv.reader(file)][1:]
        return [found[at] for at in np.random.default_rng(0).permutation(len(found))]

    count, parts = (20, 3) if small else (None, 5)
    answers = dict(sorted(rows(Path(__file__).with_name("answers.csv")))[:count])
    found = [rows(fetch("banking77/test.csv", web(SOURCE + "test.csv")))]
    with suppress(SystemExit):  # without train.csv, test.csv is split
        found += [] if small else [rows(fetch("banking77/train.csv", web(SOURCE + "train.csv")))]
    held_out, *teaching = [[row for row in part if row[1] in answers] for part in found]
    held_out, teaching = (held_out, teaching[0]) if teaching else split(held_out, HELD_OUT)
    answered, rest = split(teaching, ANSWERED)
    return answers, answered, [rest[at::parts] for at in range(parts)], held_out


def serve(bundle: Path, url: str, rows: Rows, new: list[dict]) -> Rows:
    """Answer questions, take a thumb for each; return those with a thumb up."""
    helped = []
    for device in range(DEVICES):
        state = bundle.parent / f"device-{device}"
        with Engine.open(bundle, state, url, TOKEN, share_context=True) as engine:
            engine.upsert_items(new)
            for at, (text, right) in enumerate(rows[device::DEVICES]):
                slate = engine.recommend(f"{bundle.name}-{at}", 1, text, boost=BOOST[: len(new)])
                helped += [(text, right)] if slate[0].id == right else []
                thumb = 1.0 if slate[0].id == right else -1.0
                engine.reward(slate, slate[0], thumb, observe=False, timeout_s=0)
            assert engine.flush(120), engine.counters()
    return helped


def ask(bundle: Path, new: list[dict], rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the best answers are right, and their shares of the softmax."""
    right, share = np.zeros(len(rows), bool), np.zeros(len(rows))
    with Engine.open(bundle) as engine:
        engine.upsert_items(new)
        for at, (text, wanted) in enumerate(rows):
            slate = engine.recommend("any", 100, text, greedy=True, boost=BOOST[: len(new)])
            right[at] = slate[0].id == wanted
            share[at] = 1.0 / sum(np.exp(item.score - slate[0].score) for item in slate)
    return right, share


def baseline(name: str, known: Rows, vector: dict[str, np.ndarray]) -> Callable[[Rows], tuple]:
    """Return what does as `ask`, by a classifier of the language model's vectors."""
    model = GridSearchCV(*BASELINES[name], cv=KFold(3, shuffle=True, random_state=0))
    model.fit([vector[text] for text, _ in known], [right for _, right in known])

    def told(rows: Rows) -> tuple:
        found = model.predict_proba([vector[text] for text, _ in rows])
        return model.classes_[found.argmax(1)] == [right for _, right in rows], found.max(1)

    return told


def less(first: tuple, second: tuple) -> list[float]:
    """Return the difference of two ratios of sums over questions, and its paired interval."""
    found = ratio_difference(first, second, np.random.default_rng(0))
    return [found.value, found.low, found.high]


def hand_over(past: tuple, now: tuple) -> dict[str, object]:
    """Return what handing the least certain tenth to a person does to the others' accuracy."""
    shares, (right, share) = np.sort(past[1]), now
    # A new question is below the j-th lowest of m with probability j / (m + 1).
    kept = share >= shares[int(PERSON * (len(shares) + 1)) - 1]
    said = IsotonicRegression(out_of_bounds="clip").fit(past[1], past[0]).predict(share)[kept]
    found = {"handed": 1.0 - kept.mean(), "rest": right[kept].mean(), "promised": said.mean()}
    return found | {"gain": less((right & kept, kept), (right, np.ones(len(right))))}


def main(small: bool, out: Path) -> dict[str, object]:
    """Run rounds of questions, thumbs and releases; return the figures."""
    (answers, answered, rounds, held_out), url = read(small), collector(out / "events")
    texts = [(part, x) for x, text in answers.items() for part in (text.split(":")[0], text)]
    every = [text for rows in (answered, held_out, texts, *rounds) for text, _ in rows]
    vector = dict(zip(every, LanguageModel("minilm", device="cpu").encode(every), strict=True))
    later, new = list(answers)[::NEW], []
    ids = [x for x in answers if x not in later]

    def about(rows: Rows, ids: list[str]) -> Rows:
        return [row for row in rows if row[1] in ids]

    def table() -> pa.Table:
        return pa.table({"item_id": ids, "text": [answers[x] for x in ids]})

    def row(title: str, rows: Rows) -> tuple[dict, dict]:
        asked = {"Sanderling": lambda rows: ask(bundle, new, rows)}
        asked |= {name: baseline(name, known, vector) for name in BASELINES}
        told = {name: each(rows) for name, each in asked.items()}
        print(title, *(f"{name} {told[name][0].mean():.3f}" for name in told), sep=", ", flush=True)
        return asked, told

    known = about(texts + answered, ids)
    log = [(f"before-{at}", x, text, 1.7e9) for at, (text, x) in enumerate(known)]
    log = pa.table(list(zip(*log, strict=True)), ["user_id", "item_id", "context", "timestamp"])
    train(log, out / "release-1", table(), config=Path(__file__).with_name("train.toml"))
    first = bundle = quantize(out / "release-1", out / "bundle-1", encoder="base").folder
    for number, questions in enumerate(rounds[:-1], 1):
        row(f"release {number}, {len(ids)} answers", about(held_out, ids))
        if number == len(rounds) - 1:
            ids, known = list(answers), known + about(texts, later)
            new = [{"id": x, "text": answers[x], "new": True} for x in later]
            row(f"{len(new)} answers added: theirs", about(held_out, later))
            row(f"{len(new)} answers added: all", held_out)
        known += serve(bundle, url, about(questions, ids), new)
        before, after = (out / f"release-{x}" for x in (number, number + 1))
        bundle = out / f"bundle-{number + 1}"
        options = {"items": table(), "bundle": bundle, "encoder_of": first, "encoder": "base"}
        done = retrain(out / "events", before, after, ship_anyway=True, **options)
        print(done.metrics["sentence"])
    new = []
    asked, told = row(f"release {len(rounds)}, all answers", held_out)
    full = texts + [row for part in (answered, *rounds[:-1]) for row in part]
    full = baseline("logistic regression", full, vector)(held_out)[0].mean()
    handed = {name: hand_over(each(rounds[-1]), told[name]) for name, each in asked.items()}
    print(f"logistic regression with full labels {full:.3f}", *handed.items(), sep="\n")
    (ours, *others), ones = [right for right, _ in told.values()], np.ones(len(held_out))
    best = max(others, key=np.mean)
    figures = {"sanderling": ours.mean(), "baseline": best.mean(), "full_labels": full}
    return figures | {"interval": less((ours, ones), (best, ones))[1:], "hand_over": handed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="20 answers, in two minutes")
    parser.add_argument("--out", type=Path, default=tempfile.mkdtemp(), help="keeps the releases")
    print(json.dumps(main(**vars(parser.parse_args()))))
