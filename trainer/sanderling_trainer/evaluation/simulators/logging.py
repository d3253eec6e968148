"""Logs of a world: slates drawn by ε-greedy exploration with exact propensities, and what users answered.

Refuses to know where scores come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sanderling.exploration import sequential
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.simulators.click_models import Bools, Floats, Ints
from sanderling_trainer.evaluation.simulators.world import Feedback


@dataclass(frozen=True)
class Slates:
    """b slates of K slots: items, ranks int64 [b, K]; conditional, marginal float64 [b, K] propensities."""

    items: Ints
    ranks: Ints
    conditional: Floats
    marginal: Floats


def draw_slates(
    scores: Floats, eligible: Bools, slots: int, pool: int, epsilon: float, rng: np.random.Generator
) -> Slates:
    """Draw a slate for each row of scores float [b, n] under scheme `sequential`, from its `pool` best eligible items.

    Raises ValueError where a row has fewer eligible items than slots.
    """
    fewest = int(eligible.sum(axis=1).min())
    if fewest < slots:
        raise ValueError(f"expected at least {slots} eligible items, found {fewest}")
    greedy = np.argsort(np.where(eligible, -scores, np.inf), axis=1, kind="stable")
    sizes = np.minimum(max(pool, slots), eligible.sum(axis=1))
    drawn = [
        sequential.draw(slots, int(size), epsilon, [tuple(pair) for pair in uniforms.tolist()])
        for size, uniforms in zip(sizes, rng.random((len(scores), slots, 2)), strict=True)
    ]
    ranks = np.array([one.ranks for one in drawn], np.int64)
    return Slates(
        items=np.take_along_axis(greedy, ranks, axis=1),
        ranks=ranks,
        conditional=np.array([one.conditional for one in drawn]),
        marginal=np.array([one.marginal for one in drawn]),
    )


def decisions_of_slates(
    slates: Slates, feedback: Feedback, known: Bools, history: Ints, at: Ints
) -> Decisions:
    """Join slates with the answers known so far, bool [b, K]; decision i is of `history[i]` after `at[i]` events.

    A slot that was not looked at counts as shown and not clicked: the log cannot tell.
    """
    return Decisions(
        history=history,
        position=at,
        items=slates.items,
        logged=slates.marginal,
        conditional=slates.conditional,
        reward=feedback.reward.astype(np.float32),
        judged=known,
        context=np.full(len(history), -1, np.int64),
        ranks=slates.ranks,
        group=history,
    )
