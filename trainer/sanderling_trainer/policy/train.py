"""`train`: from items and interactions to a policy checkpoint.

Encodes the texts, runs the warm start and the policy gradient, and measures the ranking.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.histories import History, histories_of, kind_codes, policy_kinds
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.shard_writer import shard_histories
from sanderling_trainer.data.tables import Catalog, Interactions
from sanderling_trainer.data.time_split import content_hash, quantile, repeated_share
from sanderling_trainer.evaluation.trajectory_replay import trajectories
from sanderling_trainer.policy import checkpoint, ranking_report, rollout
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import ray_cluster
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.lora import LoraSettings, fine_tune, pairs_of
from sanderling_trainer.policy.training.metric_logger import (
    CombinedLogger,
    MetricLogger,
    TensorBoard,
    WeightsAndBiases,
)
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.training_state import TrainingCurves
from sanderling_trainer.policy.training.warm_start import warm_start

INNER_SPLIT = 0.9  # share of the training part, in time, that the warm start learns from
REPEATS = 0.01  # share of repeated events above which users count as repeating

Encode = Callable[[Sequence[str], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """What `train` returns beside the files."""

    metrics: dict[str, Any]

    seconds: dict[str, float]
    """Of each stage."""


# Nine parameters: each is one option of `sanderling train`, and all but five have defaults.
def train(
    catalog: Catalog,
    interactions: Interactions,
    out: Path,
    config: Config,
    *,
    app: str,
    holdout: float = 0.2,
    wandb: str | None = None,
    lora: bool = False,
    address: str | None = None,
) -> Trained:
    """Train a policy, measure its ranking, and write a checkpoint into `out`.

    The earliest 1 - holdout of the log's time is for training, the rest for measuring. The warm
    start learns from the first 90 % of the training part. The resulting policy is then replayed
    along what users did in the last 10 %, which it has not seen, and the policy gradient learns
    from these logged decisions. An interrupted warm start resumes when the same call is repeated.

    app: the name of the app, for the checkpoint.
    wandb: a Weights & Biases project that records the curves, beside TensorBoard in `out/runs`.
    lora: fine-tune the language model on the log first.
    address: of a Ray cluster, or "auto", to encode the catalog and run the warm start there.

    Raises `TableError` where nothing in the training part is liked.
    """
    watch = _Stopwatch()
    part = _TrainingPart.of(catalog, interactions, holdout)
    out.mkdir(parents=True, exist_ok=True)
    workers = ray_cluster.join(address) if address else 0

    encode = _encoder(part, out / "encoder", config, lora, workers)
    context = TrainingContext(
        _network(encode, part, config),
        part.histories,
        config,
        part.repeats,
        part.popularity,
        _metric_logger(out, config, wandb),
    )
    watch.lap("encode")

    unfinished = out / f"unfinished-{_run_id(part, config, lora)}.pt"
    metrics = {"log": part.summary(), **_fit(context, part, unfinished, workers, watch)}
    if holdout > 0:
        metrics["ranking"] = ranking_report.tables(
            context.network, interactions, part.split, part.kinds, config.slate
        )
    watch.lap("evaluate")

    exposure = Exposure.of_log(part.past.item, len(catalog))
    trained = Checkpoint(
        context.network, catalog, config, part.metadata(app), part.popularity, exposure
    )
    queries = queries_of(histories_of(interactions, part.kinds, part.split), part.repeats)
    checkpoint.save(out, trained, metrics, queries=queries)
    unfinished.unlink(missing_ok=True)
    watch.lap("write")
    return Trained(metrics, watch.seconds)


@dataclass(frozen=True)
class _TrainingPart:
    """The part of a log that is for training."""

    catalog: Catalog

    past: Interactions
    """The events up to `split`."""

    inner: int
    """Seconds; later events of `past` validate the warm start."""

    split: int
    """Seconds; later events are for measuring."""

    @staticmethod
    def of(catalog: Catalog, log: Interactions, holdout: float) -> _TrainingPart:
        split = quantile(log.time, 1.0 - holdout)
        past = log.select(log.time <= split)
        if not (past.reward > 0).any():
            raise TableError(
                f"the log: expected at least one reward above 0 up to second {split}, found none"
                " to learn from; check the column `reward`"
            )
        inner = quantile(log.time, (1.0 - holdout) * INNER_SPLIT)
        return _TrainingPart(catalog, past, inner, split)

    @cached_property
    def fingerprint(self) -> str:
        return content_hash(self.catalog.ids, self.past)

    @cached_property
    def histories(self) -> list[History]:
        return histories_of(self.past, self.kinds, self.inner)

    @cached_property
    def kinds(self) -> list[str]:
        return policy_kinds(self.past.kinds)

    @cached_property
    def repeats(self) -> bool:
        return repeated_share(self.past) > REPEATS

    @cached_property
    def popularity(self) -> PopularityHistory:
        liked = self.past.reward > 0
        return PopularityHistory.of(
            self.past.user[liked], self.past.item[liked], self.past.time[liked], len(self.catalog)
        )

    def summary(self) -> dict[str, Any]:
        return {
            "events": len(self.past),
            "users": int(np.unique(self.past.user).size),
            "items": len(self.catalog),
            "repeats": self.repeats,
        }

    def metadata(self, app: str) -> CheckpointMetadata:
        return CheckpointMetadata(
            app=app,
            release=1,
            parent=0,
            kinds=self.kinds,
            repeats=self.repeats,
            log_from=int(self.past.time.min()),
            log_to=self.split,
            data_sha256=self.fingerprint,
        )


def _run_id(part: _TrainingPart, config: Config, lora: bool) -> str:
    """Return what identifies a run, so that only the same call resumes it."""
    return hashlib.sha256(f"{part.fingerprint}{config}{lora}".encode()).hexdigest()[:16]


def _metric_logger(out: Path, config: Config, wandb: str | None) -> MetricLogger:
    loggers: list[MetricLogger] = [TensorBoard(out / "runs")]
    if wandb:
        loggers.append(WeightsAndBiases(wandb, asdict(config)))
    return CombinedLogger(loggers)


def _encoder(part: _TrainingPart, folder: Path, config: Config, lora: bool, workers: int) -> Encode:
    """Write the language model into a folder; return a function that encodes texts with it."""
    model = LanguageModel(config.language_model, config.max_tokens)
    model.model.to(_device())
    if lora:
        settings = LoraSettings(seed=config.seed)
        # Without the events that validate the warm start.
        learned_from = part.past.select(part.past.time <= part.inner)
        rng = np.random.default_rng(config.seed)
        pairs = pairs_of(learned_from, settings.days, settings.pairs, rng)
        fine_tune(model, part.catalog.texts, pairs, settings)
    model.save(folder)

    if workers:
        return partial(ray_cluster.encode, str(folder), config.max_tokens, workers)
    return model.encode


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _network(encode: Encode, part: _TrainingPart, config: Config) -> PolicyNetwork:
    text = torch.from_numpy(encode(part.catalog.texts, "encode items"))
    contexts = torch.from_numpy(encode(part.past.contexts, "encode contexts"))
    torch.manual_seed(config.seed)
    network = PolicyNetwork(config, text, contexts, len(part.kinds)).to(_device())
    if config.linear_start:
        factors = linear_init.ridge_factors(part.histories, len(part.catalog), config.dim)
        linear_init.initialize(network, factors)
    return network


def _fit(
    context: TrainingContext,
    part: _TrainingPart,
    unfinished: Path,
    workers: int,
    watch: _Stopwatch,
) -> dict[str, Any]:
    """Run the warm start, resumable from `unfinished`, then the policy gradient; return metrics."""
    if workers:
        warm = _warm_start_on_cluster(context, part, unfinished.with_suffix(""), workers)
    else:
        warm = warm_start(context, unfinished)
    watch.lap("warm start")

    gradient = _policy_gradient(context, part)
    watch.lap("policy gradient")

    curves = {"epochs": len(warm.loss), "loss": warm.loss, "validation": warm.validation}
    return {"warm_start": curves, "policy_gradient": gradient}


def _warm_start_on_cluster(
    context: TrainingContext, part: _TrainingPart, folder: Path, workers: int
) -> TrainingCurves:
    """Run the warm start on a cluster, from shards in `folder`, which is removed at the end."""
    count = min(len(part.histories), 4 * workers)
    shards = shard_histories(
        part.histories, folder / "shards", len(part.catalog), part.kinds, count
    )
    shards = replace(shards, validation_after=part.inner)
    curves = ray_cluster.warm_start(replace(context, histories=shards), folder, workers)

    # The workers have no logger: the curves are recorded here, all at once.
    for epoch, (loss, validation) in enumerate(zip(curves.loss, curves.validation, strict=True)):
        context.metric_logger.log("warm start", epoch, {"loss": loss, "validation": validation})
    shutil.rmtree(folder)
    return curves


def _policy_gradient(context: TrainingContext, part: _TrainingPart) -> dict[str, Any]:
    """Replay the policy along what users did after the inner split, and learn from the decisions.

    Returns the metrics. The network's popularity is that of the inner split while it decides, and
    that of the end of the training part afterwards.
    """
    network = context.network
    network.set_popularity_day(part.popularity, part.inner // DAY)
    replayed = trajectories(part.past, part.inner, part.split)
    codes = kind_codes(part.past.kinds, part.kinds)
    histories, decisions, replays = rollout.logged_replays(network, replayed, codes, context.config)
    curves = policy_gradient(replace(context, histories=histories), decisions)
    network.set_popularity_day(part.popularity, part.split // DAY)
    _initialize_unseen_kinds(network, part)

    clicks = sum(replay.clicks.sum() for replay in replays)
    shown = sum(replay.shown for replay in replays)
    return {
        "decisions": len(decisions),
        "logged_ctr": float(clicks / max(1, shown)),
        "surrogate": curves.loss,
        "kl": curves.kl,
    }


def _initialize_unseen_kinds(network: PolicyNetwork, part: _TrainingPart) -> None:
    """Let kinds that the log lacks move the state as its most frequent liked kind does."""
    liked = part.past.kind[part.past.reward > 0]
    if not len(liked):
        return
    most_frequent = part.kinds.index(part.past.kinds[int(np.bincount(liked).argmax())])
    unseen = [code for code, kind in enumerate(part.kinds) if kind not in part.past.kinds]
    with torch.no_grad():
        network.kind[unseen] = network.kind[most_frequent].clone()


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
