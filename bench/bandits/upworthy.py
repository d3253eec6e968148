"""Part "upworthy": choosing headlines from their text alone, where the truth comes from A/B tests.

Each visitor of a test saw one of its K headlines with probability 1/K, so any policy's click rate
follows from the arms' own rates, and by inverse propensities as well; the two must agree.

Protocol: arms of equal headline in a test are merged, tests with one headline left out; tests of
weeks before 201435 train, later weeks report; every choice is tuned on the last fifth of the
training tests, then fitted to all of them. The lift is Σ V(policy) / Σ V(uniform) - 1 over tests,
with a bootstrap over tests. A policy sees texts only, so nothing is selected by the clicks that
value it, except the best arm, selected on one half of the visitors and valued on the other.

Text vectors x are the language model's. `logit`: the policy π_a ∝ exp(w·x_a) fitted by listwise
cross-entropy: a click in a test fell on arm a with probability ∝ impressions_a exp(w·x_a), the
conditional logit of McFadden 1974. `pairwise`: ridge on vectors and relative click rates, both
less their test's mean. `kernel`: the same with Gaussian kernels. `Sanderling`: the mean of the
three, each scaled. Policies are greedy.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from sanderling_trainer.evaluation.intervals import Interval, percentile_interval, ratio, resample
from sanderling_trainer.evaluation.simulators.ab_tests import ABTests
from sanderling_trainer.policy.model.language_model import LanguageModel

CUT = "201435"
Scores = np.ndarray
Fit = Callable[[ABTests, float], Callable[[ABTests], Scores]]


def run(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Return the rows; the fits are deterministic, so there is one seed."""
    world, weeks = read(data / "upworthy" / "arms.csv.gz")
    vectors = dict(zip(world.texts, LanguageModel("minilm").encode(world.texts), strict=True))
    past, later = np.flatnonzero(weeks < CUT), np.flatnonzero(weeks >= CUT)
    inner = past[: int(0.8 * len(past))], past[int(0.8 * len(past)) :]
    train, test = world.select(past), world.select(later)
    fit, tune = world.select(inner[0]), world.select(inner[1])
    print(f"upworthy: {train.users} tests train, {test.users} report, {len(test.test)} arms")
    chosen = {
        name: tuned(model, fit, tune, train, grid)
        for name, (model, grid) in models(vectors).items()
    }
    scores = {name: score(test) for name, score in chosen.items()}
    ours = [name for name in scores if name.startswith("MiniLM") and name != "MiniLM ridge"]
    scores["Sanderling (mean of the three)"] = sum(
        centred(scores[name], test) / centred(chosen[name](train), train).std() for name in ours
    )
    return report(scores, test)


def read(path: Path) -> tuple[ABTests, np.ndarray]:
    """Return the tests with two headlines or more by their last week, and that week for each."""
    tests: dict[str, dict[str, list[int]]] = {}
    week: dict[str, str] = {}
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            test = row["clickability_test_id"]
            counts = tests.setdefault(test, {}).setdefault(row["headline"], [0, 0])
            counts[0] += int(row["impressions"])
            counts[1] += int(row["clicks"])
            week[test] = max(week.get(test, ""), row["test_week"])
    order = sorted(
        (test for test in tests if len(tests[test]) > 1), key=lambda test: (week[test], test)
    )
    arms = [
        (at, text, *counts) for at, test in enumerate(order) for text, counts in tests[test].items()
    ]
    place, texts, shown, clicked = zip(*arms, strict=True)
    world = ABTests(texts, np.array(place), np.array(shown), np.array(clicked))
    return world, np.array([week[test] for test in order])


def models(vectors: dict[str, np.ndarray]) -> dict[str, tuple[Fit, Sequence[float]]]:
    """Return each model with the grid that its one dial is tuned over."""

    def encoded(world: ABTests) -> np.ndarray:
        return np.stack([vectors[text] for text in world.texts])

    alphas, far = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0), (1.0, 3.0, 10.0, 30.0)
    return {
        "TF-IDF ridge": (tfidf_ridge(ngram_range=(1, 2), min_df=2), alphas),
        "TF-IDF ridge, characters": (
            tfidf_ridge(analyzer="char_wb", ngram_range=(2, 5), min_df=3),
            alphas,
        ),
        "MiniLM ridge": (ridge(lambda _: encoded), alphas),
        "MiniLM pairwise": (ridge(lambda _: lambda world: centred(encoded(world), world)), alphas),
        "MiniLM logit": (logit(encoded), (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
        "MiniLM kernel": (kernel(encoded), far),
    }


def tuned(
    model: Fit,
    fit: ABTests,
    tune: ABTests,
    train: ABTests,
    grid: Sequence[float],
) -> Callable[[ABTests], Scores]:
    """Choose the dial by the lift on the inner split, and fit to all that trains."""
    best = max(grid, key=lambda dial: lift_of(greedy(model(fit, dial)(tune), tune), tune))
    return model(train, best)


def ridge(features: Callable[[ABTests], Callable[[ABTests], Any]]) -> Fit:
    """Ridge on relative click rates, weighted by expected clicks; `features` may be fitted."""

    def fit(world: ABTests, alpha: float) -> Callable[[ABTests], Scores]:
        made, (target, weight) = features(world), relative(world)
        found = Ridge(alpha=alpha).fit(made(world), target, sample_weight=weight)
        return lambda other: found.predict(made(other))

    return fit


def tfidf_ridge(**options: Any) -> Fit:
    """Ridge on TF-IDF, its vocabulary from the training texts."""

    def features(world: ABTests) -> Callable[[ABTests], Any]:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **options).fit(world.texts)
        return lambda other: vectorizer.transform(other.texts)

    return ridge(features)


def logit(encoded: Callable[[ABTests], np.ndarray]) -> Fit:
    """The softmax policy's listwise cross-entropy with a ridge penalty, by L-BFGS."""

    def fit(world: ABTests, penalty: float) -> Callable[[ABTests], Scores]:
        x, test = torch.from_numpy(encoded(world)), torch.from_numpy(world.test)
        shown, clicked = (
            torch.from_numpy(counts).float() for counts in (world.impressions, world.clicked)
        )
        w = torch.zeros(x.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            odds = shown * (x @ w).exp()
            total = torch.zeros(world.users).index_add(0, test, odds)
            found = (
                -(clicked * (odds / total[test]).log()).sum() / clicked.sum()
                + penalty * w.square().sum()
            )
            found.backward()
            return found

        optimizer.step(loss)
        return lambda other: encoded(other) @ w.detach().numpy()

    return fit


def kernel(encoded: Callable[[ABTests], np.ndarray], gamma: float = 3.0) -> Fit:
    """Kernel ridge on differences to the test's mean, k(x, y) = exp(-γ |x - y|²).

    The noise is by expected clicks.
    """

    def fit(world: ABTests, noise: float) -> Callable[[ABTests], Scores]:
        x, (target, weight) = encoded(world), relative(world)

        def between(other: ABTests) -> np.ndarray:
            return centred(
                centred(np.exp(-gamma * (2.0 - 2.0 * encoded(other) @ x.T)), other).T, world
            ).T

        dual = np.linalg.solve(between(world) + noise * np.diag(1.0 / weight), target)
        return lambda other: between(other) @ dual

    return fit


def relative(world: ABTests) -> tuple[np.ndarray, np.ndarray]:
    """Return each arm's click rate over its test's, minus 1, and its weight: expected clicks."""
    base = (np.bincount(world.test, world.clicked) / np.bincount(world.test, world.impressions))[
        world.test
    ]
    weight = world.impressions * base
    return world.rates / np.maximum(base, 1e-9) - 1.0, np.maximum(weight / weight.mean(), 1e-9)


def centred(values: np.ndarray, world: ABTests) -> np.ndarray:
    """Take each test's mean from values [arms, ...]."""
    starts = np.flatnonzero(np.diff(world.test, prepend=-1))
    means = np.add.reduceat(values, starts, axis=0) / np.bincount(world.test).reshape(
        -1, *[1] * (values.ndim - 1)
    )
    return values - means[world.test]


def greedy(scores: Scores, world: ABTests) -> np.ndarray:
    """Return the policy that shows the best arm of each test, float64 [arms]."""
    policy = np.zeros(len(scores))
    for test in range(world.users):
        arms = np.flatnonzero(world.test == test)
        policy[arms[np.argmax(scores[arms])]] = 1.0
    return policy


def lift_of(policy: np.ndarray, world: ABTests) -> float:
    """Return Σ V(policy) / Σ V(uniform) - 1 over tests."""
    return float(world.direct(policy).sum() / world.direct(world.uniform()).sum() - 1.0)


def report(scores: dict[str, Scores], test: ABTests) -> list[dict[str, Any]]:
    """Return lifts, differences and ratios to the TF-IDF ridges, and the check by IPS."""
    rng, uniform, rows = np.random.default_rng(0), test.direct(test.uniform()), []
    bases = {
        name: test.direct(greedy(scores[name], test))
        for name in scores
        if name.startswith("TF-IDF")
    }
    for name, score in scores.items():
        policy = greedy(score, test)
        direct, found = test.direct(policy), test.ips(policy)
        rows.append(row(name, "lift over uniform", less_one(ratio(direct, uniform, rng))))
        rows.append(row(name, "IPS - direct, relative", relative_gap(found, direct, rng)))
        for base, value in bases.items() if name not in bases else ():
            rows.append(row(name, f"lift over {base}", less_one(ratio(direct, value, rng))))
            rows.append(
                row(name, f"lift / lift of {base}", lift_ratio(direct, value, uniform, rng))
            )
    picking, valuing = test.halves(rng)
    best = valuing.direct(greedy(picking.rates, picking))
    return [
        *rows,
        row("best arm of the other half", "lift over uniform", less_one(ratio(best, uniform, rng))),
    ]


def less_one(found: Interval) -> Interval:
    """Return a ratio's interval less 1."""
    return Interval(found.value - 1.0, found.low - 1.0, found.high - 1.0)


def relative_gap(found: np.ndarray, direct: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return Σ (IPS - direct) / Σ direct: 0 lies in the interval when the propensities are true."""
    return ratio(found - direct, direct, rng)


def lift_ratio(
    ours: np.ndarray, base: np.ndarray, uniform: np.ndarray, rng: np.random.Generator
) -> Interval:
    """Return the ratio of two lifts over uniform; unbounded above where the base's may be 0."""
    values = np.stack([ours - uniform, base - uniform], axis=1)
    top, bottom = resample(values, rng).T
    sums = values.sum(axis=0)
    return percentile_interval(
        sums[0] / sums[1], np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.inf)
    )


def row(model: str, metric: str, found: Interval) -> dict[str, Any]:
    """Return one row of the table."""
    return {"data": "upworthy", "model": model, "metric": metric, **found.as_dict(), "seeds": 1}
