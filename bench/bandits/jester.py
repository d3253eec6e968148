"""Part "jester": ten jokes for a new user, one after the other, where every rating is known.

Limits: popular jokes are liked by 79 % and every user likes some joke, so like-rates lie between
.79 and 1; ten ratings hold little information about a taste.

Protocol: 700 users train, 300 are new users, five random splits; a reward is a rating above 0; no
joke comes twice; the rating is known at the next step. Tuned on the last 100 training users.
Intervals: bootstrap over users. Regret after t steps: the likes of each user's best jokes less
ours. Vowpal Wabbit and mabwiser run in an environment of their own, created at the first run
(`bench.bandits.peers`).
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.bandits import gaussian, jester_policy
from sanderling_trainer.evaluation.intervals import Interval, ratio, ratio_difference
from sanderling_trainer.evaluation.simulators.environment import Session
from sanderling_trainer.evaluation.simulators.rating_matrix import RatingMatrix
from sanderling_trainer.policy.model.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
TRAIN, INNER, STEPS = 700, 600, 10
EPSILONS = (0.0, 0.05, 0.1, 0.2)
OURS, MEMBERS = "Sanderling, distilled (2 networks)", 2


class State(Protocol):
    """The sessions of b users so far."""

    def scores(self) -> np.ndarray:
        """Return scores [b, n]."""

    def observe(self, items: np.ndarray, ratings: np.ndarray) -> None:
        """Condition on one rating of each user."""


class Policy(Protocol):
    """A policy to compare."""

    def start(self, users: int) -> State:
        """Return the state of new users."""


class Fixed:
    """The same scores for every user; None draws random ones at each step."""

    def __init__(self, values: np.ndarray | None, n: int, seed: int) -> None:
        self.values, self.n, self.rng, self.users = values, n, np.random.default_rng(seed), 0

    def start(self, users: int) -> Fixed:
        """Return itself."""
        self.users = users
        return self

    def scores(self) -> np.ndarray:
        """Return the scores [b, n]."""
        return (
            np.tile(self.values, (self.users, 1))
            if self.values is not None
            else self.rng.random((self.users, self.n))
        )

    def observe(self, items: np.ndarray, ratings: np.ndarray) -> None:
        """Ignore the ratings."""


def walk(
    world: RatingMatrix, policy: Policy, epsilon: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the likes bool [users, 10] of ε-greedy sessions."""
    users = np.arange(world.users)
    session, state, likes = Session(world, users, rng), policy.start(world.users), []
    while not session.done:
        greedy = np.where(session.eligible, state.scores(), -np.inf).argmax(axis=1)
        chance = np.where(session.eligible, rng.random(session.eligible.shape), -1.0).argmax(axis=1)
        shown = np.where(rng.random(len(users)) < epsilon, chance, greedy)
        likes.append(session.step(shown[:, None]).clicks[:, 0])
        state.observe(shown, world.ratings[users, shown])
    return np.stack(likes, axis=1)


def run(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Return the rows of all models."""
    ratings = np.load(data / "jester" / "ratings_1000x100.npy").astype(np.float64)
    with (data / "jester" / "jokes.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    text = LanguageModel("minilm", max_tokens=256).encode(texts)
    found: dict[tuple[str, float], list[np.ndarray]] = {}
    order = [np.random.default_rng(seed).permutation(len(ratings)) for seed in range(seeds)]
    for seed, users in enumerate(order):
        for key, likes in one_split(ratings[users], texts, text, seed).items():
            found.setdefault(key, []).append(likes)
        print(
            f"split {seed}: "
            + ", ".join(
                f"{name} {runs[-1].mean():.3f}" for (name, at), runs in found.items() if at == 0
            )
        )
    new_users = np.concatenate([users[TRAIN:] for users in order])
    rows = rows_of({key: np.concatenate(likes) for key, likes in found.items()}, new_users, seeds)
    draw(rows)
    return rows


def one_split(
    ratings: np.ndarray, texts: list[str], text: np.ndarray, seed: int
) -> dict[tuple[str, float], np.ndarray]:
    """Return each model's likes [300, 10] at each ε; users come in the split's order."""
    train, world = ratings[:TRAIN], RatingMatrix(ratings[TRAIN:], texts, STEPS)
    shrink, by_chance = tuned(ratings[:TRAIN], texts)
    students = [
        jester_policy.distilled(train, text, 10 * seed + at, shrink) for at in range(MEMBERS)
    ]
    both = jester_policy.Learned([one.networks[0] for one in students], students[0].edges)
    policies: dict[str, Policy] = {
        "random": Fixed(None, len(texts), seed),
        "popular": Fixed((train > 0).mean(axis=0), len(texts), seed),
        "Gaussian CF": gaussian.fit(train),
        "Gaussian CF, tuned": gaussian.fit(train, shrink, by_chance),
        "Sanderling, warm start from logs": jester_policy.from_logs(
            train, text, seed, gradient=False
        ),
        "Sanderling, learned from logs": jester_policy.from_logs(train, text, seed),
        "Sanderling, distilled": students[0],
        OURS: both,
    }
    several = {"Gaussian CF", OURS}
    found = {
        (name, epsilon): walk(world, policy, epsilon, np.random.default_rng(seed))
        for name, policy in policies.items()
        for epsilon in (EPSILONS if name in several else EPSILONS[:1])
    }
    best = np.sort(world.ratings > 0, axis=1)[:, ::-1][:, :STEPS]
    return {
        **found,
        ("best", 0.0): best,
        **{(name, 0.0): likes for name, likes in peers(train, world.ratings, seed).items()},
    }


def tuned(train: np.ndarray, texts: list[str]) -> tuple[float, bool]:
    """Return the Gaussian's shrinkage and score that are best on the inner split."""
    world = RatingMatrix(train[INNER:], texts, STEPS)

    def rate(dials: tuple[float, bool]) -> float:
        return walk(
            world, gaussian.fit(train[:INNER], *dials), 0.0, np.random.default_rng(0)
        ).mean()

    return max(
        ((shrink, chance) for shrink in (0.0, 0.1, 0.2, 0.3, 0.5) for chance in (False, True)),
        key=rate,
    )


def peers(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Run Vowpal Wabbit and mabwiser by the python of their own environment."""
    home = ROOT / ".bench-peers"
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "vowpalwabbit", "mabwiser"], check=True
        )
    with tempfile.TemporaryDirectory() as folder:
        given, back = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(given, train=train, test=test, seed=seed)
        subprocess.run([python, Path(__file__).with_name("peers.py"), given, back], check=True)
        return dict(np.load(back))


def rows_of(
    found: dict[tuple[str, float], np.ndarray], new_users: np.ndarray, seeds: int
) -> list[dict[str, Any]]:
    """Return like-rates, differences and regrets of likes [seeds × 300, 10].

    A user who is in several splits is one unit of resampling.
    """
    rng, rows = np.random.default_rng(0), []
    code = np.unique(new_users, return_inverse=True)[1]
    shown = np.bincount(code).astype(np.float64) * STEPS

    def sums(likes: np.ndarray) -> np.ndarray:
        return np.bincount(code, likes.sum(axis=1).astype(np.float64))

    def add(name: str, metric: str, interval: Interval) -> None:
        columns = {"data": "jester", "model": name, "metric": metric}
        rows.append({**columns, **interval.as_dict(), "seeds": seeds})

    for (name, epsilon), likes in found.items():
        label = f"{name}, ε={epsilon:g}" if epsilon else name
        add(label, "like-rate", ratio(sums(likes), shown, rng))
        for step in range(1, STEPS + 1):
            lost = sums(found["best", 0.0][:, :step]) - sums(likes[:, :step])
            add(label, f"regret@{step}", ratio(lost, shown / STEPS, rng))
    ours = sums(found[OURS, 0.0]), shown
    for (name, epsilon), likes in found.items():
        if epsilon == 0.0 and name not in (OURS, "best"):
            add(OURS, f"less {name}", ratio_difference(ours, (sums(likes), shown), rng))
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw the regret curves to bench/out/jester_regret.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    curves: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"].startswith("regret@") and row["model"] != "best":
            curves.setdefault(row["model"], []).append(row["value"])
    for name, curve in curves.items():
        axes.plot(range(1, STEPS + 1), curve, label=name)
    axes.set(xlabel="step", ylabel="regret, likes a user")
    axes.legend(fontsize=7)
    (ROOT / "bench" / "out").mkdir(exist_ok=True)
    figure.savefig(ROOT / "bench" / "out" / "jester_regret.png", dpi=120)
    pyplot.close(figure)
