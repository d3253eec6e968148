"""What a network scores the items that logged decisions showed, and how clicks follow from it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.training.batches import DecisionPoints, batches, decision_points
from sanderling_trainer.policy.training.context import TrainingContext

Floats = NDArray[np.float64]


def shown_scores(context: TrainingContext, decisions: Decisions, points: DecisionPoints) -> Tensor:
    """Return the network's scores float32 [q, K] of the items shown at q decisions.

    An empty slot has the score of an arbitrary item.
    """
    network = context.network
    batch = points.batch
    items = network.items()
    states = network.states(items, batch.items, batch.kinds)[points.row, points.position]
    users = network.users(states, points.context)

    shown = torch.from_numpy(decisions.items[points.indices]).clamp(min=0).to(context.device)
    biases = network.biases(shown.flatten()).view(shown.shape)
    return (users[:, None] * items[shown]).sum(-1) + biases


@torch.no_grad()
def all_shown_scores(context: TrainingContext, decisions: Decisions) -> Floats:
    """Return the network's scores float64 [m, K] of what all decisions showed."""
    scores = np.zeros(decisions.items.shape)
    histories = context.histories_in_memory
    for batch in batches(histories, context.config.batch_events, context.device):
        points = decision_points(batch, decisions)
        if len(points):
            scores[points.indices] = shown_scores(context, decisions, points).cpu().numpy()
    return scores


def slot_regression(scores: Floats, click: Floats, weight: Floats) -> tuple[float, Floats]:
    """Return the a and the e float64 [K] of P(click | slot k) = σ(a s + e_k) that make a log's
    clicks most likely.

    scores, click (unbiased, about 0 to 1) and weight are float64 [m, K].
    """
    # Centred and scaled, so that the optimizer needs few steps.
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-9)
    standardized = torch.from_numpy((scores - centre) / spread)
    clicks, weights = torch.from_numpy(click), torch.from_numpy(weight)
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slot = torch.full(scores.shape[1:], -2.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, slot], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scale * standardized + slot
        loss = (weights * (softplus(logits) - clicks * logits)).sum() / weights.sum()
        # The ridge keeps slots finite that nobody clicked.
        loss = loss + 1e-4 * slot.square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = float(scale.detach()) / spread
    return found, slot.detach().numpy() - found * centre
