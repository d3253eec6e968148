"""The click regression: every shown slot, clicked or not, teaches the scores that rank.

    P(click | slot k of a decision) = σ(a s(i | h) + e_k + o_h + c)

s is the policy's own score of the item shown, a a scale, e_k the effect of the slot, o_h that of
the user, c a constant: what the slot and the user explain does not move the scores. A regression
needs no importance weights: where the model holds it is right whoever chose the slots (the
regression oracle of contextual bandits, Foster and Rakhlin 2020, arXiv:2002.04926).

What users do without a slate teaches by cross-entropy beside it. Their answers to slates do not,
since that would teach to show again what was shown (`History.is_response`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.training.batch_source import InMemory
from sanderling_trainer.policy.training.batch_weights import BatchWeights
from sanderling_trainer.policy.training.batches import (
    DecisionPoints,
    TrainingBatch,
    decision_points,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import Optimizer, Schedule, precision
from sanderling_trainer.policy.training.shown_scores import (
    all_shown_scores,
    shown_scores,
    slot_regression,
)
from sanderling_trainer.policy.training.training_state import TrainingCurves, seeded
from sanderling_trainer.policy.training.warm_start import warm_start_objective

EPOCHS = 3
MIN_STEPS = 40  # a small log is seen more often, since so few steps would not move the scores
EFFECTS_RATE = 0.02  # learning rate of scale, slots and constant
USERS_RATE = 0.05  # learning rate of the users' effects
USERS_RIDGE = 0.01
MIN_SCALE = 0.25
"""Of the scores at first: clicks must reach a network whose scores say nothing of them yet."""


@dataclass(frozen=True)
class Pace:
    """How fast a network learns from clicks."""

    learning_rate: float
    """Of the network."""

    supervision: float
    """The weight of the cross-entropy on what users did without a slate."""

    fits_effects: bool
    """Whether scale and slots are fitted to the network's scores before it learns."""


TRAINED = Pace(1.5e-3, 1.0, False)
"""Of a network that cross-entropy has trained: its scores are log probabilities plus a constant."""

LINEAR_START = Pace(7.5e-4, 0.1, True)
"""Of one that `train` left at its linear start, since each epoch of cross-entropy made it worse.
Its scores have another scale, and it must not unlearn what the closed form knows."""


class ClickModel(nn.Module):
    """The part of the regression that is not the policy; it ends with the training."""

    def __init__(self, slots: int, histories: int, click_rate: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.slot = nn.Parameter(torch.zeros(slots))
        self.constant = nn.Parameter(torch.tensor(math.log(click_rate)))
        self.user = nn.Parameter(torch.zeros(histories))

    def forward(self, scores: Tensor, history: Tensor) -> Tensor:
        """Return the logits [q, K] of scores [q, K] at decisions of histories int64 [q]."""
        return self.scale * scores + self.slot + self.constant + self.user[history][:, None]


class ClickRegression:
    """The log loss of a network's scores as predictors of the clicks of a log."""

    def __init__(self, context: TrainingContext, decisions: Decisions, batches: int = 1) -> None:
        """`batches` is how many an epoch has; raise `ValueError` unless a slot is judged."""
        judged = decisions.judged & (decisions.items >= 0)
        if not judged.any():
            raise ValueError("expected at least one judged slot, found none")
        self._context = context
        self._decisions = decisions
        self._weight = decisions.weights()[:, None] * judged
        # Rewards that randomized response flipped are unbiased but not bounded; so are these.
        self._click = (decisions.reward.astype(np.float64) + 1.0) / 2.0

        judged_slots = float(self._weight.sum())
        clicks = float((self._weight * self._click).sum())
        self.click_rate = min(max(clicks, 1.0) / (judged_slots + 1.0), 0.5)
        # The same for all batches: normalized by its own clicks, a batch of few slots would give
        # each of them much weight, and who sends histories of unusual length chooses the batch.
        self._clicks_per_batch = max(1.0, self.click_rate * judged_slots / batches)
        slots, histories = decisions.items.shape[1], len(context.histories_in_memory)
        self.model = ClickModel(slots, histories, self.click_rate).to(context.device)

    def __call__(self, points: DecisionPoints) -> Tensor:
        """Return the loss over some decisions, per expected click of an average batch."""
        scores = shown_scores(self._context, self._decisions, points)
        logits = self.model(scores, self._tensor(self._decisions.history, points))
        weight = self._tensor(self._weight, points).float()
        click = self._tensor(self._click, points).float()

        # Linear in the click, so that unbiased clicks give an unbiased loss.
        loss = (weight * (softplus(logits) - click * logits)).sum()
        return loss / self._clicks_per_batch + USERS_RIDGE * self.model.user.square().mean()

    def weight_of(self, points: DecisionPoints) -> float:
        """Return the weight of all judged slots of some decisions."""
        return float(self._weight[points.indices].sum())

    @torch.no_grad()
    def fit_effects(self) -> None:
        """Set scale and slots to what the network's scores, as they are, make most likely.

        Left to the training they would lag behind, and the network would learn in their place.
        """
        self._context.network.eval()
        scores = all_shown_scores(self._context, self._decisions)
        with torch.enable_grad():
            scale, effects = slot_regression(scores, self._click, self._weight)
        slot = torch.from_numpy(effects).float()
        self.model.scale.fill_(max(scale, MIN_SCALE))
        self.model.constant.copy_(slot.mean())
        self.model.slot.copy_(slot - slot.mean())

    def effects_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the click model, which learns faster than the network."""
        model = self.model
        effects = {"params": [model.scale, model.slot, model.constant], "lr": EFFECTS_RATE}
        return torch.optim.Adam([effects, {"params": [model.user], "lr": USERS_RATE}])

    def _tensor(self, column: np.ndarray, points: DecisionPoints) -> Tensor:
        return torch.from_numpy(column[points.indices]).to(self._context.device)


def click_regression(
    context: TrainingContext, decisions: Decisions, pace: Pace = TRAINED
) -> TrainingCurves:
    """Train a network on logged decisions by the click regression; return the loss of each epoch.

    Raises `DivergedError` where a parameter ends NaN or infinite, `ValueError` where no slot is
    judged.
    """
    config = context.config
    network = context.network
    source = InMemory(context, context.histories_in_memory, need_targets=False)
    regression = ClickRegression(context, decisions, source.batches)
    if pace.fits_effects:
        regression.fit_effects()
    loss_of = _objective(
        context, decisions, regression, warm_start_objective(context, source), pace.supervision
    )
    weights = BatchWeights(
        regression.weight_of, decisions, source, pace.supervision > 0, config.accumulate
    )
    epochs = max(EPOCHS, -(-MIN_STEPS // weights.steps))
    schedule = Schedule(pace.learning_rate, config.weight_decay, epochs, weights.steps)
    optimizer = Optimizer(network, schedule)
    effects = regression.effects_optimizer()
    # Another stream than the warm start's.
    rng = seeded(config.seed + 1)

    curves = TrainingCurves()
    weight = 0.0
    for epoch in tqdm(range(epochs), desc="click regression", unit="epoch"):
        losses = []
        for batch in source.training(rng):
            with precision(context.device):
                loss = loss_of(batch)
            if loss is None:
                continue
            optimizer.add(loss)
            losses.append(loss.item())

            weight += weights.of(batch)
            if weight >= weights.full_step:
                optimizer.step()
                effects.step()
                effects.zero_grad()
                weight = 0.0
        curves.loss.append(float(np.mean(losses)))
        context.metric_logger.log("click regression", epoch, {"loss": curves.loss[-1]})
    # What is left is less than a step.
    network.zero_grad()

    network.check_finite()
    network.eval()
    return curves


def _objective(
    context: TrainingContext,
    decisions: Decisions,
    regression: ClickRegression,
    cross_entropy: CrossEntropy,
    supervision: float,
) -> Callable[[TrainingBatch], Tensor | None]:
    """Return the function that gives the loss of a batch, None where the batch teaches nothing."""
    network = context.network

    def loss_of(batch: TrainingBatch) -> Tensor | None:
        histories, targets = batch
        losses = []
        points = decision_points(histories, decisions)
        if len(points):
            # Without dropout: these are the scores that the device ranks by.
            network.eval()
            losses.append(regression(points))
        if supervision > 0 and len(targets):
            network.train()
            losses.append(supervision * cross_entropy(histories, targets))
        return torch.stack(losses).sum() if losses else None

    return loss_of
