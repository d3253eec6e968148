"""One fit of the policy: a network, its linear start, and the warm start.

Inner windows, the policy that is measured and the one that ships are all fitted here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.histories import History, histories_of, policy_kinds
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.shard_writer import shard_histories
from sanderling_trainer.data.shards import NEVER
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.policy.contexts import initialize_contexts, start_contexts
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.attribute_table import AttributeTable
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.device import torch_device
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.newcomers import NewcomerCalibration, calibrate_newcomers
from sanderling_trainer.policy.training import ray_cluster
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.metric_logger import NO_METRICS, MetricLogger
from sanderling_trainer.policy.training.training_state import TrainingCurves
from sanderling_trainer.policy.training.warm_start import warm_start


@dataclass(frozen=True)
class TrainingPart:
    """What one fit learns from: all events of `log`, which is in order of time."""

    log: Interactions

    items: int
    """n, the size of the catalog."""

    repeats: bool
    """Whether users come back to items they had."""

    @cached_property
    def kinds(self) -> list[str]:
        """The policy's kinds of event."""
        return policy_kinds(self.log.kinds)

    @cached_property
    def histories(self) -> list[History]:
        """One for each user; no event is kept for validation."""
        return histories_of(self.log, self.kinds, NEVER)

    @cached_property
    def popularity(self) -> PopularityHistory:
        """The likes of each day."""
        liked = self.log.reward > 0
        return PopularityHistory.of(
            self.log.user[liked], self.log.item[liked], self.log.time[liked], self.items
        )

    @property
    def end(self) -> int:
        """Time of the last event in seconds."""
        return int(self.log.time.max())


@dataclass(frozen=True)
class TextVectors:
    """Unit vectors of the items' texts [n, t] and of the contexts' [m, t + C], which their features
    follow; the items' features.
    """

    items: Tensor
    contexts: Tensor

    attributes: AttributeTable | None = None
    """The features of the items' attributes; None without any."""

    device: torch.device = field(default_factory=torch_device)
    """Where the networks that read them are fitted."""


@dataclass(frozen=True)
class FitOptions:
    """How a fit runs, which does not change what it learns."""

    metric_logger: MetricLogger = NO_METRICS

    unfinished: Path | None = None
    """A file that makes the fit resumable, removed at the end."""

    workers: int = 0
    """Processes of a joined Ray cluster that share the warm start; none with 0."""

    after_epoch: Callable[[PolicyNetwork, int], object] | None = None
    """Called with the network and the number of finished epochs; not on a cluster."""

    label: str = "warm start"
    """What the fit is for, on the progress bar; not on a cluster."""


@dataclass(frozen=True)
class Fit:
    """A trained network in its context, and what its epochs measured."""

    context: TrainingContext
    newcomers: NewcomerCalibration
    curves: TrainingCurves = field(default_factory=TrainingCurves)


def fit_policy(
    part: TrainingPart, config: Config, vectors: TextVectors, options: FitOptions | None = None
) -> Fit:
    """Fit a policy to a part of a log; its popularity is that of the part's last day."""
    options = options or FitOptions()
    network = initial_network(part, config, vectors)
    context = TrainingContext(
        network, part.histories, config, part.repeats, part.popularity, options.metric_logger
    )
    if options.workers:
        curves = _on_cluster(context, part, options)
    else:
        curves = warm_start(
            context, options.unfinished, _hook(network, part, options), options.label
        )

    newcomers = calibrate_newcomers(context)
    if not _has_texts(part, vectors):
        initialize_contexts(context)
    network.set_popularity_day(part.popularity, part.end // DAY)
    _initialize_unseen_kinds(network, part)
    if options.unfinished is not None:
        options.unfinished.unlink(missing_ok=True)
    return Fit(context, newcomers, curves)


def initial_network(part: TrainingPart, config: Config, vectors: TextVectors) -> PolicyNetwork:
    """Return the network that a fit starts from."""
    torch.manual_seed(config.seed)
    network = PolicyNetwork(
        config,
        vectors.items,
        vectors.contexts,
        len(part.kinds),
        vectors.attributes,
    )
    if config.linear_start:
        factors = linear_init.ridge_factors(part.histories, part.items, config.dim, config.ridge)
        linear_init.initialize(network, factors, config.memory, config.gain)
    elif _has_texts(part, vectors):
        start_contexts(network)
    return network.to(vectors.device)


def _hook(
    network: PolicyNetwork, part: TrainingPart, options: FitOptions
) -> Callable[[int], object] | None:
    """Return what the warm start calls after each epoch: the network as it would be served."""
    if options.after_epoch is None:
        return None
    after_epoch = options.after_epoch

    def call(epoch: int) -> None:
        network.eval()
        network.set_popularity_day(part.popularity, part.end // DAY)
        after_epoch(network, epoch)

    return call


def _has_texts(part: TrainingPart, vectors: TextVectors) -> bool:
    """Return whether the part's log has a context with a text, from which contexts are learned."""
    used = np.unique(part.log.context[part.log.context >= 0])
    return bool(vectors.contexts[torch.from_numpy(used), : vectors.items.shape[1]].any())


def _on_cluster(
    context: TrainingContext, part: TrainingPart, options: FitOptions
) -> TrainingCurves:
    """Run the warm start on a cluster, from shards in a folder that is removed at the end."""
    if options.unfinished is None:
        raise ValueError("fit_policy: expected `unfinished`, whose folder holds a cluster's shards")
    folder = options.unfinished.with_suffix("")
    count = min(len(part.histories), 4 * options.workers)
    shards = shard_histories(part.histories, folder / "shards", part.items, part.kinds, count)
    curves = ray_cluster.warm_start(replace(context, histories=shards), folder, options.workers)

    # The workers have no logger: the curves are recorded here, all at once.
    for epoch, (loss, validation) in enumerate(zip(curves.loss, curves.validation, strict=True)):
        context.metric_logger.log("warm start", epoch, {"loss": loss, "validation": validation})
    shutil.rmtree(folder)
    return curves


def _initialize_unseen_kinds(network: PolicyNetwork, part: TrainingPart) -> None:
    """Let kinds that the log lacks move the state as its most frequent liked kind does."""
    log = part.log
    liked = log.kind[log.reward > 0]
    if not len(liked):
        return
    most_frequent = part.kinds.index(log.kinds[int(np.bincount(liked).argmax())])
    unseen = [code for code, kind in enumerate(part.kinds) if kind not in log.kinds]
    with torch.no_grad():
        network.kind[unseen] = network.kind[most_frequent].clone()
