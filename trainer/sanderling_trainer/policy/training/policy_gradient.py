"""The policy gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import training_state
from sanderling_trainer.policy.training.batches import decisions_in, lessons
from sanderling_trainer.policy.training.metric_logger import NOWHERE, MetricLogger
from sanderling_trainer.policy.training.objectives import CrossEntropy, off_policy
from sanderling_trainer.policy.training.optimizer import Optimiser, precision
from sanderling_trainer.policy.training.training_state import Trace


def policy_gradient(
    network: PolicyNetwork,
    histories: Sequence[History],
    decisions: Decisions,
    config: Config,
    repeats: bool,
    baseline: float | None = None,
    journal: MetricLogger = NOWHERE,
) -> Trace:
    """Learn from logged decisions, held near the policy that the network is when this begins (DESIGN §5).

    Minimises the top-K off-policy-corrected surrogate + τ KL(π || π_ref) + supervision × next-item cross-entropy. The
    baseline b is the mean reward of the log unless one is given; decisions count by `Decisions.weights`. Raises
    `DivergedError` where it ends with a parameter that is not finite.
    """
    device, trace = network.bias.device, Trace()
    reference = copy.deepcopy(network).eval().requires_grad_(False)
    objective = CrossEntropy(network, config, repeats)
    applied_rewards = lessons(histories, config, repeats, device, fresh=None)
    optimiser = Optimiser(
        network,
        config.policy_learning_rate,
        0.0,
        config.policy_epochs,
        len(applied_rewards),
        config,
    )
    rng = training_state.seeded(config.seed + 1)
    counts = decisions.weights()
    if baseline is None:
        baseline = _mean_reward(decisions, counts)
    with tqdm(range(config.policy_epochs), desc="policy gradient", unit="epoch") as bar:
        for epoch in bar:
            total, divergence = [], []
            for batch, asked in (
                applied_rewards[at] for at in rng.permutation(len(applied_rewards))
            ):
                chosen, place = decisions_in(batch, decisions)
                if not len(chosen):
                    continue
                with precision(device):
                    network.eval()
                    gain, kl = off_policy(
                        network,
                        reference,
                        batch,
                        decisions,
                        counts,
                        chosen,
                        place,
                        config,
                        repeats,
                        baseline,
                    )
                    loss = gain + config.kl * kl
                    if config.supervision > 0 and len(asked):
                        network.train()
                        loss = loss + config.supervision * objective(batch, asked)
                optimiser.accumulate_and_step(loss)
                total.append(gain.item())
                divergence.append(kl.item())
            optimiser.step()
            trace.loss.append(_mean(total))
            trace.kl.append(_mean(divergence))
            found = {"surrogate": trace.loss[-1], "kl": trace.kl[-1]}
            bar.set_postfix({name: f"{value:.4f}" for name, value in found.items()})
            journal.add("policy gradient", epoch, found)
    network.check_finite()
    network.eval()
    return trace


def _mean_reward(decisions: Decisions, counts: np.ndarray) -> float:
    weights = np.broadcast_to(counts[:, None], decisions.judged.shape)[decisions.judged]
    return (
        float(np.average(decisions.reward[decisions.judged], weights=weights))
        if len(weights)
        else 0.0
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
