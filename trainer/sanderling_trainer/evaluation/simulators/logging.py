"""Logs of an environment: ε-greedy slates with exact propensities, and the users' responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sanderling.exploration import sequential
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.simulators.click_models import Bools, Floats, Ints
from sanderling_trainer.evaluation.simulators.environment import Feedback


@dataclass(frozen=True)
class DrawnSlates:
    """b slates of K slots: items and ranks int64 [b, K], propensities float64 [b, K]."""

    items: Ints
    ranks: Ints
    conditional: Floats
    marginal: Floats


def draw_slates(
    scores: Floats, eligible: Bools, slots: int, pool: int, epsilon: float, rng: np.random.Generator
) -> DrawnSlates:
    """Draw a slate under scheme `sequential` for each row of scores float [b, n].

    Each slate explores among the `pool` best items of `eligible` bool [b, n].

    Raises:
        ValueError: a row has fewer eligible items than slots.
    """
    fewest = int(eligible.sum(axis=1).min())
    if fewest < slots:
        raise ValueError(f"expected at least {slots} eligible items, found {fewest}")

    greedy = np.argsort(np.where(eligible, -scores, np.inf), axis=1, kind="stable")
    sizes = np.minimum(max(pool, slots), eligible.sum(axis=1))
    slates = [
        sequential.draw(slots, int(size), epsilon, [tuple(pair) for pair in uniforms.tolist()])
        for size, uniforms in zip(sizes, rng.random((len(scores), slots, 2)), strict=True)
    ]
    ranks = np.array([slate.ranks for slate in slates], np.int64)
    return DrawnSlates(
        items=np.take_along_axis(greedy, ranks, axis=1),
        ranks=ranks,
        conditional=np.array([slate.conditional for slate in slates]),
        marginal=np.array([slate.marginal for slate in slates]),
    )


def simulated_decisions(
    slates: DrawnSlates, feedback: Feedback, judged: Bools, history: Ints, events_before: Ints
) -> Decisions:
    """Return slates with the rewards known so far (judged bool [b, K]) as logged decisions.

    Decision i is of `history[i]` after `events_before[i]` events. A slot that was not examined
    counts as shown and not clicked, because a real log does not distinguish the two.
    """
    return Decisions(
        history=history,
        position=events_before,
        items=slates.items,
        marginal=slates.marginal,
        conditional=slates.conditional,
        reward=feedback.reward.astype(np.float32),
        judged=judged,
        context=np.full(len(history), -1, np.int64),
        ranks=slates.ranks,
        group=history,
    )
