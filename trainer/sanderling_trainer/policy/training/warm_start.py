"""The supervised warm start: cross-entropy on what users liked next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sanderling_trainer.policy.training import distributed
from sanderling_trainer.policy.training.batch_source import BatchSource, batch_source
from sanderling_trainer.policy.training.batches import PopularityTable, TrainingBatch
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.glibc_malloc import keep_memory
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import Optimizer, Schedule, precision
from sanderling_trainer.policy.training.sampled_softmax import Proposal
from sanderling_trainer.policy.training.training_state import (
    TrainingCurves,
    TrainingState,
    start_or_resume,
)

PATIENCE = 4  # epochs


def warm_start(
    context: TrainingContext,
    resume: Path | None = None,
    after_epoch: Callable[[int], object] | None = None,
    label: str = "warm start",
) -> TrainingCurves:
    """Train the network by cross-entropy on the events before the inner split; return the curves.

    The softmax is over the whole catalog, or over a corrected sample of one larger than
    `config.full_softmax`. Training stops when the validation loss has not improved for 4 epochs,
    after a quarter of all epochs at the earliest, and keeps the best parameters; without validation
    events it runs to the end.

    Of the `config.epochs` that the learning rate is planned for, only `config.stop_after` are run
    where that is given; `after_epoch` hears of the network before the first as of epoch 0.

    resume: a file that is written after every epoch and read if it is there. On a CPU an
    interrupted run then ends, bit for bit, as if it had not been interrupted.
    after_epoch: called after each epoch with the number of finished ones.
    label: of the progress bar.

    Processes joined by `torch.distributed` train one network together. The process keeps the memory
    that it frees (`glibc_malloc`).
    """
    keep_memory()
    config = context.config
    source = batch_source(context)
    objective = warm_start_objective(context, source)
    optimizer = warm_start_optimizer(context, source.batches)
    state = start_or_resume(context.network, optimizer, config.seed, resume)

    is_first = distributed.rank() == 0
    last = config.epochs if config.stop_after is None else min(config.epochs, config.stop_after)
    epochs = range(state.epoch, last)
    if after_epoch is not None:
        after_epoch(state.epoch)
    # `disable=False` would show the bar under --quiet, which tqdm reads from the environment.
    hidden = {} if is_first else {"disable": True}
    with tqdm(epochs, label, initial=state.epoch, unit="epoch", **hidden) as progress:
        for epoch in progress:
            loss = _epoch(source, objective, state)
            validation = validation_loss(objective, source.validation())
            values = {"loss": loss, "validation": validation}
            progress.set_postfix({name: f"{value:.3f}" for name, value in values.items()})
            if is_first:
                context.metric_logger.log("warm start", epoch, values)

            state.finish_epoch(epoch, values)
            if after_epoch is not None:
                after_epoch(epoch + 1)
            if state.epochs_since_best >= PATIENCE and epoch >= config.epochs // 4:
                break

    state.restore_best()
    context.network.eval()
    history = state.history
    return TrainingCurves(history.get("loss", []), history.get("validation", []))


def warm_start_optimizer(context: TrainingContext, batches: int) -> Optimizer:
    """Return the warm start's optimizer for so many batches an epoch."""
    config = context.config
    schedule = Schedule(
        config.learning_rate, config.weight_decay, config.epochs, batches, config.accumulate
    )
    # The sampled softmax touches few residuals in a step, so that their gradient is sparse.
    sparse = [context.network.residual] if _is_sampled(context) else []
    return Optimizer(context.network, schedule, sparse)


def _is_sampled(context: TrainingContext) -> bool:
    return len(context.network.bias) > context.config.full_softmax


def warm_start_objective(context: TrainingContext, source: BatchSource) -> CrossEntropy:
    """Return the warm start's objective; a sampled softmax draws by the counts of the source."""
    popularity = context.popularity
    table = None if popularity is None else PopularityTable(popularity, context.device)
    proposal = None
    if _is_sampled(context):
        proposal = Proposal.of(source.counts(len(context.network.bias)), context.device)
    return CrossEntropy(context, table, proposal)


def _epoch(source: BatchSource, objective: CrossEntropy, state: TrainingState) -> float:
    """Train for one epoch; return the mean loss over its batches and the processes."""
    device = objective.context.device
    state.network.train()
    losses = []

    # Processes that finish early repeat batches in an order that all could know: the epoch seeds
    # it.
    restart = partial(source.training, np.random.default_rng(state.epoch))
    for batch in distributed.in_step(source.training(state.rng), restart, device):
        with precision(device):
            loss = objective(*batch)
        state.optimizer.accumulate_and_step(loss)
        losses.append(loss.item())

    state.optimizer.step()
    return _ratio([sum(losses), len(losses)], device)


@torch.no_grad()
def validation_loss(objective: CrossEntropy, batches: Iterable[TrainingBatch]) -> float:
    """Return the mean cross-entropy of the targets in some batches, NaN where there are none.

    A sampled softmax uses the same draws every time; its loss lies a little below the full one, as
    the logarithm of an unbiased estimate does.
    """
    objective.context.network.eval()
    objective = objective.with_fixed_draws()
    total_loss = 0.0
    total_weight = 0.0
    for batch, targets in batches:
        if len(targets):
            weight = float(targets.weight.sum())
            total_loss += weight * objective(batch, targets).item()
            total_weight += weight
    return _ratio([total_loss, total_weight], objective.context.device)


def _ratio(sums: Sequence[float], device: torch.device) -> float:
    """Return the ratio of two sums over the processes, NaN for an empty one."""
    numerator, denominator = distributed.total(sums, device)
    return numerator / denominator if denominator else math.nan
