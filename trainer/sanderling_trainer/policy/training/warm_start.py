"""Learning a policy: a supervised warm start, then the off-policy policy gradient on logged decisions.

Refuses to read logs and to judge what it learned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import Trends
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import distributed, training_state
from sanderling_trainer.policy.training.batch_source import Source, source_of
from sanderling_trainer.policy.training.batches import TrainingBatch, TrendTable
from sanderling_trainer.policy.training.glibc_malloc import keep_memory
from sanderling_trainer.policy.training.metric_logger import NOWHERE, MetricLogger
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import Optimiser, precision
from sanderling_trainer.policy.training.sampled_softmax import Proposal
from sanderling_trainer.policy.training.training_state import Run, Trace

PATIENCE = 4


def warm_start(
    network: PolicyNetwork,
    histories: Sequence[History] | Shards,
    config: Config,
    repeats: bool,
    trends: Trends | None = None,
    journal: MetricLogger = NOWHERE,
    resume: Path | None = None,
) -> Trace:
    """Learn to predict what users like next by cross-entropy on the events before the inner split.

    The softmax is over the whole catalogue, or over a corrected sample of one larger than `config.full_softmax`. Stops
    when the fresh events are predicted worse for 4 epochs, a quarter of all at the earliest, and keeps the best;
    without fresh events it runs to the end. `trends` lets the popularity of the day enter the scores. With `resume`,
    a file that is written after every epoch and read when it is there, an interrupted run goes on where it was and
    ends, on a CPU, bit for bit as if it had not been interrupted. Processes joined by `torch.distributed` learn one
    network together. The process keeps the memory that it frees (`keep_memory`).
    """
    keep_memory()
    device = network.bias.device
    source = source_of(histories, config, repeats, device)
    table = None if trends is None else TrendTable(trends, device)
    sampled = len(network.bias) > config.full_softmax
    proposal = Proposal.of(source.counts(len(network.bias)), device) if sampled else None
    objective = CrossEntropy(network, config, repeats, table, proposal)
    rates = (config.learning_rate, config.weight_decay, config.epochs, source.batches)
    optimiser = Optimiser(network, *rates, config, [network.residual] if sampled else [])
    run = training_state.begin(network, optimiser, config.seed, resume)
    first = distributed.rank() == 0
    with tqdm(
        range(run.epoch, config.epochs),
        "warm start",
        initial=run.epoch,
        unit="epoch",
        disable=not first,
    ) as bar:
        for epoch in bar:
            loss = _epoch(source, objective, run, device)
            found = {"loss": loss, "validation": validation_loss(objective, source.validation())}
            bar.set_postfix({name: f"{value:.3f}" for name, value in found.items()})
            if first:
                journal.add("warm start", epoch, found)
            run.finish(epoch, found)
            if run.worse >= PATIENCE and epoch >= config.epochs // 4:
                break
    run.restore_best()
    network.eval()
    return Trace(run.history["loss"], run.history["validation"])


def _epoch(source: Source, objective: CrossEntropy, run: Run, device: torch.device) -> float:
    """Descend over one epoch; return the mean loss over its batches and the processes."""
    run.network.train()
    losses = []
    again = partial(source.learned, np.random.default_rng(run.epoch))
    for lesson in distributed.in_step(source.learned(run.rng), again, device):
        with precision(device):
            loss = objective(*lesson)
        run.optimiser.accumulate_and_step(loss)
        losses.append(loss.item())
    run.optimiser.step()
    return _ratio([sum(losses), len(losses)], device)


@torch.no_grad()
def validation_loss(objective: CrossEntropy, validation: Iterable[TrainingBatch]) -> float:
    """Return the mean cross-entropy of what was liked after the inner split; NaN when there is nothing.

    A sampled softmax takes the same draws every time; its figure lies a little below the full one, as the logarithm of
    an unbiased estimate does.
    """
    objective.network.eval()
    objective = objective.fixed()
    loss, weight = 0.0, 0.0
    for batch, asked in validation:
        if len(asked):
            own = float(asked.weight.sum())
            loss += own * objective(batch, asked).item()
            weight += own
    return _ratio([loss, weight], objective.network.bias.device)


def _ratio(parts: Sequence[float], device: torch.device) -> float:
    """Return the ratio of two sums over the processes, NaN for nothing."""
    over, under = distributed.total(parts, device)
    return over / under if under else math.nan
