"""The off-policy policy gradient on logged decisions, regularized towards the
policy it starts from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.training.batches import (
    DecisionPoints,
    TargetBatch,
    batch_shares,
    decision_points,
    training_batches,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import CrossEntropy, OffPolicy
from sanderling_trainer.policy.training.optimizer import Optimizer, Schedule, precision
from sanderling_trainer.policy.training.training_state import TrainingCurves, seeded


def policy_gradient(
    context: TrainingContext, decisions: Decisions, baseline: float | None = None
) -> TrainingCurves:
    """Train the network on logged decisions; return the surrogate loss and KL per
    epoch.

    Minimizes the top-K off-policy-corrected surrogate + τ KL(π || π_ref) + supervision × next-item
    cross-entropy, where π_ref is the policy that the network is at the start (docs/MATH.md,
    "Learning").

    baseline: b; the log's mean reward unless given. Decisions count by `Decisions.weights`.

    Raises `DivergedError` where a parameter ends NaN or infinite.
    """
    config = context.config
    network = context.network
    # No policy chose what the app pinned.
    decisions = replace(decisions, judged=decisions.judged & ~decisions.pinned)

    reference = copy.deepcopy(network).eval().requires_grad_(False)
    if baseline is None:
        baseline = _mean_reward(decisions)
    off_policy = OffPolicy(context, reference, decisions, baseline)

    batches = training_batches(context, context.histories_in_memory, validation=None)
    points = [decision_points(batch, decisions) for batch, _ in batches]
    shares = batch_shares([decisions.judged[each.indices].sum() for each in points])
    schedule = Schedule(
        config.policy_learning_rate,
        weight_decay=0.0,
        epochs=config.policy_epochs,
        batches=len(batches),
        accumulate=config.accumulate,
    )
    optimizer = Optimizer(network, schedule)
    # Another stream than the warm start's.
    rng = seeded(config.seed + 1)

    curves = TrainingCurves()
    with tqdm(range(config.policy_epochs), desc="policy gradient", unit="epoch") as progress:
        for epoch in progress:
            steps = []
            for index in rng.permutation(len(batches)):
                if len(points[index]):
                    _, targets = batches[index]
                    step = (points[index], targets, float(shares[index]))
                    steps.append(_accumulate(off_policy, *step, optimizer))
            # Apply gradients left over when the batches are no multiple of `accumulate`.
            optimizer.step()

            curves.loss.append(_mean([surrogate for surrogate, _ in steps]))
            curves.kl.append(_mean([kl for _, kl in steps]))
            values = {"surrogate": curves.loss[-1], "kl": curves.kl[-1]}
            progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
            context.metric_logger.log("policy gradient", epoch, values)

    network.check_finite()
    network.eval()
    return curves


def _accumulate(
    off_policy: OffPolicy,
    points: DecisionPoints,
    targets: TargetBatch,
    share: float,
    optimizer: Optimizer,
) -> tuple[float, float]:
    """Add the gradient of one batch, the surrogate's scaled by `share` (`batch_shares`); return
    its surrogate loss and its KL divergence.
    """
    context = off_policy.context
    config = context.config
    with precision(context.device):
        # Without dropout: both policies of an importance weight must be the ones that would act.
        context.network.eval()
        surrogate, kl = off_policy(points)
        loss = share * surrogate + config.kl * kl
        if config.supervision > 0 and len(targets):
            context.network.train()
            cross_entropy = CrossEntropy(context)(points.batch, targets)
            loss = loss + config.supervision * cross_entropy
    optimizer.accumulate_and_step(loss)
    return surrogate.item(), kl.item()


def _mean_reward(decisions: Decisions) -> float:
    """Return the mean reward of the judged slots, 0 where there are none."""
    judged = decisions.judged
    weights = np.broadcast_to(decisions.weights()[:, None], judged.shape)[judged]
    if not len(weights):
        return 0.0
    return float(np.average(decisions.reward[judged], weights=weights))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
