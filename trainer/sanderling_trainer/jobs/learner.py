"""What one night's learning does to a network."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.newcomers import calibrate_newcomers
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.warm_start import warm_start

CONTINUED_EPOCHS = 2
"""Epochs by which a night continues the warm start."""

CONTINUED_RATE = 0.25
"""Share of the warm start's learning rate at which a night continues it."""

WHOLE_HISTORY = 0.5
"""The histories must have this share of all likes that were ever counted: cross-entropy on a small
part of them makes a policy forget the others (docs/LOG.md, "The first circle")."""


def learn(
    context: TrainingContext, decisions: Decisions, resume: Path | None = None
) -> dict[str, Any]:
    """Train a network on all that is known, in place; return metrics.

    context: the network, with the night's catalog and popularity; the histories of devices and of
    earlier interactions; the popularity of every day.
    decisions: what devices logged, on the histories by their index and position.
    resume: a file from which an interrupted warm start goes on.
    """
    metrics: dict[str, Any] = {"warm_start": _continue_warm_start(context, decisions, resume)}

    # The policy gradient alone: cross-entropy on the few users of one log made the policy worse on
    # every inner split.
    alone = replace(context, config=replace(context.config, supervision=0.0))
    curves = policy_gradient(alone, decisions)
    metrics["policy_gradient"] = {
        "decisions": len(decisions),
        "surrogate": curves.loss,
        "kl": curves.kl,
    }
    return metrics


def _continue_warm_start(
    context: TrainingContext, decisions: Decisions, resume: Path | None
) -> dict[str, Any] | str:
    liked = (each.liked & ~each.is_response for each in context.histories_in_memory)
    known = sum(int(column.sum()) for column in liked)
    counted = 0 if context.popularity is None else int(context.popularity.users.sum())
    if known == 0 or known < WHOLE_HISTORY * counted:
        return (
            f"not continued: the histories have {known} organic likes of {counted} that were"
            " counted; give --interactions"
        )

    config = context.config
    config = replace(
        config,
        epochs=CONTINUED_EPOCHS,
        learning_rate=CONTINUED_RATE * config.learning_rate,
    )
    curves = warm_start(replace(context, config=config), resume)
    newcomers = calibrate_newcomers(context, shown=decisions.items)
    return {"epochs": len(curves.loss), "loss": curves.loss, "newcomers": asdict(newcomers)}
