"""What one night's learning does to a network."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.newcomers import calibrate_newcomers
from sanderling_trainer.policy.training.click_regression import (
    LINEAR_START,
    TRAINED,
    click_regression,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient

WHOLE_HISTORY = 0.5
"""The histories must have this share of all likes that were ever counted: cross-entropy on a small
part of them makes a policy forget the others (docs/LOG.md, "The first circle")."""


def learn(context: TrainingContext, decisions: Decisions) -> dict[str, Any]:
    """Train a network on all that is known, in place; return metrics.

    The decisions teach by `config.learner`. The click regression has the cross-entropy of organic
    events beside it where the histories hold most of them.

    context: the network, with the night's catalog and popularity; the histories of devices and of
    earlier interactions; the popularity of every day.
    decisions: what devices logged, on the histories by their index and position.
    """
    metrics: dict[str, Any] = {"learner": context.config.learner, "decisions": len(decisions)}
    if context.config.learner == "policy_gradient":
        # Cross-entropy on the few users of one log made the policy worse on every inner split.
        alone = replace(context, config=replace(context.config, supervision=0.0))
        curves = policy_gradient(alone, decisions)
        return metrics | {"surrogate": curves.loss, "kl": curves.kl}

    known, counted = _organic_likes(context)
    is_supervised = known > 0 and known >= WHOLE_HISTORY * counted
    if not is_supervised:
        metrics["supervision"] = (
            f"none: the histories have {known} organic likes of {counted} that were counted; give"
            " --interactions"
        )
    pace = LINEAR_START if context.config.stop_after == 0 else TRAINED
    if not is_supervised:
        pace = replace(pace, supervision=0.0)
    curves = click_regression(context, decisions, pace)
    metrics["loss"] = curves.loss
    if is_supervised:
        metrics["newcomers"] = asdict(calibrate_newcomers(context, shown=decisions.items))
    return metrics


def _organic_likes(context: TrainingContext) -> tuple[int, int]:
    """Return how many likes without a slate the histories have, and how many were ever counted."""
    liked = (each.liked & ~each.is_response for each in context.histories_in_memory)
    known = sum(int(column.sum()) for column in liked)
    return known, 0 if context.popularity is None else int(context.popularity.users.sum())
