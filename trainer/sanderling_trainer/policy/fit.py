"""Learning a policy: a supervised warm start, then the off-policy policy gradient on logged decisions.

Refuses to read logs and to judge what it learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sanderling_trainer.data.examples import Decisions, History
from sanderling_trainer.data.trends import Trends
from sanderling_trainer.policy import progress
from sanderling_trainer.policy.batches import Lesson, TrendTable, decisions_in, lessons
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.journal import NOWHERE, Journal
from sanderling_trainer.policy.network import PolicyNetwork
from sanderling_trainer.policy.objectives import off_policy, supervised
from sanderling_trainer.policy.optimise import Optimiser, precision

PATIENCE = 4


@dataclass
class Trace:
    """What happened while learning, an entry an epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)


def warm_start(
    network: PolicyNetwork,
    histories: Sequence[History],
    config: Config,
    repeats: bool,
    trends: Trends | None = None,
    journal: Journal = NOWHERE,
    resume: Path | None = None,
) -> Trace:
    """Learn to predict what users like next by full cross-entropy on the events before the inner split.

    Stops when the fresh events are predicted worse for 4 epochs, a quarter of all at the earliest, and keeps the best;
    without fresh events it runs to the end. `trends` lets the popularity of the day enter the scores. With `resume`,
    a file that is written after every epoch and read when it is there, an interrupted run goes on where it was and
    ends, on a CPU, bit for bit as if it had not been interrupted.
    """
    device = network.bias.device
    learned, validation = (lessons(histories, config, repeats, device, fresh) for fresh in (False, True))
    learned = [lesson for lesson in learned if len(lesson[1])]
    table = None if trends is None else TrendTable(trends, device)
    optimiser = Optimiser(network, config.learning_rate, config.weight_decay, config.epochs, len(learned), config)
    run = progress.begin(network, optimiser, config.seed, resume)
    with tqdm(range(run.epoch, config.epochs), desc="warm start", unit="epoch", initial=run.epoch) as bar:
        for epoch in bar:
            network.train()
            total = []
            for at in run.rng.permutation(len(learned)):
                with precision(device):
                    loss = supervised(network, *learned[at], config, repeats, table)
                optimiser.descend(loss)
                total.append(loss.item())
            found = {"loss": _mean(total), "validation": validation_loss(network, validation, config, repeats, table)}
            bar.set_postfix({name: f"{value:.3f}" for name, value in found.items()})
            journal.add("warm start", epoch, found)
            run.finish(epoch, found)
            if run.worse >= PATIENCE and epoch >= config.epochs // 4:
                break
    network.load_state_dict(run.best)
    network.eval()
    return Trace(run.history["loss"], run.history["validation"])


@torch.no_grad()
def validation_loss(
    network: PolicyNetwork, validation: Sequence[Lesson], config: Config, repeats: bool, trends: TrendTable | None
) -> float:
    """Return the mean cross-entropy of what was liked after the inner split; NaN when there is nothing."""
    network.eval()
    losses, weights = [], []
    for batch, asked in validation:
        if len(asked):
            losses.append(supervised(network, batch, asked, config, repeats, trends).item())
            weights.append(float(asked.weight.sum()))
    return float(np.average(losses, weights=weights)) if losses else math.nan


def policy_gradient(
    network: PolicyNetwork,
    histories: Sequence[History],
    decisions: Decisions,
    config: Config,
    repeats: bool,
    baseline: float | None = None,
    journal: Journal = NOWHERE,
) -> Trace:
    """Learn from logged decisions, held near the policy that the network is when this begins (DESIGN §5).

    Minimises the top-K off-policy-corrected surrogate + τ KL(π || π_ref) + supervision × next-item cross-entropy. The
    baseline b is the mean reward of the log unless one is given.
    """
    device, trace = network.bias.device, Trace()
    reference = copy.deepcopy(network).eval().requires_grad_(False)
    taught = lessons(histories, config, repeats, device, fresh=None)
    optimiser = Optimiser(network, config.policy_learning_rate, 0.0, config.policy_epochs, len(taught), config)
    rng = progress.seeded(config.seed + 1)
    if baseline is None:
        baseline = float(decisions.reward[decisions.judged].mean()) if decisions.judged.any() else 0.0
    with tqdm(range(config.policy_epochs), desc="policy gradient", unit="epoch") as bar:
        for epoch in bar:
            total, divergence = [], []
            for batch, asked in (taught[at] for at in rng.permutation(len(taught))):
                chosen, place = decisions_in(batch, decisions)
                if not len(chosen):
                    continue
                with precision(device):
                    network.eval()
                    gain, kl = off_policy(
                        network, reference, batch, decisions, chosen, place, config, repeats, baseline
                    )
                    loss = gain + config.kl * kl
                    if config.supervision > 0 and len(asked):
                        network.train()
                        loss = loss + config.supervision * supervised(network, batch, asked, config, repeats, None)
                optimiser.descend(loss)
                total.append(gain.item())
                divergence.append(kl.item())
            trace.loss.append(_mean(total))
            trace.kl.append(_mean(divergence))
            found = {"surrogate": trace.loss[-1], "kl": trace.kl[-1]}
            bar.set_postfix({name: f"{value:.4f}" for name, value in found.items()})
            journal.add("policy gradient", epoch, found)
    network.eval()
    return trace


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
