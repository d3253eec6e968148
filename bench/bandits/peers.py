"""Vowpal Wabbit and mabwiser on the rating matrix; run by the python of their own environment.

    .bench-peers/bin/python bench/bandits/peers.py IN.npz OUT.npz

IN holds train and test ratings float [u, n] and a seed; OUT gets for each peer the likes bool
[test users, 10]. Each peer learns from sessions with training users, of which it sees the ratings
given on the way, and then acts greedily on test users without learning. The context is the session
so far: each rated item with its rating. mabwiser's LinGreedy needs a log to start from and gets one
of uniform sessions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from vowpalwabbit import Workspace

STEPS, PASSES = 10, 2
VW = {
    "VW epsilon-greedy": "--epsilon 0.1",
    "VW squarecb": "--squarecb --gamma_scale 100",
    "VW bag": "--bag 5",
}


def main() -> None:
    """Read the matrix, try each peer, write its likes."""
    given = np.load(sys.argv[1])
    train, test, seed = given["train"], given["test"], int(given["seed"])
    found = {name: vowpal(options, train, test, seed) for name, options in VW.items()}
    found["mabwiser LinGreedy"] = linear_greedy(train, test, seed)
    np.savez(sys.argv[2], **found)


def vowpal(options: str, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Learn online on training users, in random order, then act greedily on test users."""
    learner = Workspace(
        f"--cb_explore_adf {options} -q ha -l 0.01 --quiet --random_seed {seed + 1}"
    )
    rng = np.random.default_rng(seed)
    for _ in range(PASSES):
        for user in rng.permutation(len(train)):
            session(learner, train[user], rng)
    likes = [session(learner, ratings, None) for ratings in test]
    learner.finish()
    return np.array(likes)


def session(learner: Workspace, ratings: np.ndarray, rng: np.random.Generator | None) -> list[bool]:
    """Run a session; with `rng`, sample actions from the learner and let it learn from them."""
    left, shared, likes = list(range(len(ratings))), "shared |h start", []
    for _ in range(STEPS):
        actions = [f"|a i{item}" for item in left]
        chances = np.array(learner.predict([shared, *actions]))
        at = (
            int(chances.argmax())
            if rng is None
            else int(rng.choice(len(left), p=chances / chances.sum()))
        )
        rating = ratings[left[at]]
        likes.append(bool(rating > 0))
        if rng is not None:
            actions[at] = f"0:{-1.0 if rating > 0 else 1.0}:{chances[at]} {actions[at]}"
            learner.learn([shared, *actions])
        shared += f" i{left[at]}:{rating / 50:.4f}"
        del left[at]
    return likes


def linear_greedy(train: np.ndarray, test: np.ndarray, seed: int, sessions: int = 10) -> np.ndarray:
    """Ridge regression an arm on the session's ratings, fitted to uniform sessions, then greedy."""
    rng = np.random.default_rng(seed)
    contexts, decisions, rewards = [], [], []
    for ratings in np.tile(train, (sessions, 1)):
        context = np.zeros(len(ratings) + 1)
        context[-1] = 1.0
        for item in rng.permutation(len(ratings))[:STEPS]:
            contexts.append(context.copy())
            decisions.append(int(item))
            rewards.append(1.0 if ratings[item] > 0 else -1.0)
            context[item] = ratings[item] / 5
    learner = MAB(
        list(range(train.shape[1])),
        LearningPolicy.LinGreedy(epsilon=0.0, l2_lambda=30.0),
        seed=seed,
    )
    learner.fit(decisions, rewards, np.array(contexts))
    return greedy(
        lambda states: np.array(
            [list(row.values()) for row in learner.predict_expectations(states)]
        ),
        test,
    )


def greedy(scores: Callable[[np.ndarray], np.ndarray], test: np.ndarray) -> np.ndarray:
    """Walk all test users side by side."""
    users, states = np.arange(len(test)), np.zeros((len(test), test.shape[1] + 1))
    states[:, -1] = 1.0
    left, likes = np.ones(test.shape, bool), np.zeros((len(test), STEPS), bool)
    for step in range(STEPS):
        best = np.where(left, scores(states), -np.inf).argmax(axis=1)
        likes[:, step] = test[users, best] > 0
        states[users, best], left[users, best] = test[users, best] / 5, False
    return likes


if __name__ == "__main__":
    main()
