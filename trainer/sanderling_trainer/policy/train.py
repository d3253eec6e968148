"""`train`: two tables in, a policy checkpoint out. Joins encoding, the two stages of learning, and judging.

Refuses to know bundles and devices.
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
from sanderling_trainer.data.histories import History, histories_of, kinds_of
from sanderling_trainer.data.popularity import DAY, Trends
from sanderling_trainer.data.shards import spread
from sanderling_trainer.data.tables import Catalogue, Interactions
from sanderling_trainer.data.time_split import content_hash, quantile, repeated_share
from sanderling_trainer.evaluation.trajectory_replay import trajectories
from sanderling_trainer.policy import checkpoint, ranking_report, rollout
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import ray_cluster
from sanderling_trainer.policy.training.lora import Adaptation, adapt, pairs_of
from sanderling_trainer.policy.training.metric_logger import (
    MetricLogger,
    Several,
    TensorBoard,
    WeightsAndBiases,
)
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.training_state import Trace
from sanderling_trainer.policy.training.warm_start import warm_start

INNER_SPLIT = 0.9
REPEATS = 0.01

Encode = Callable[[Sequence[str], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """What `train` gives back beside the files: the metrics, and the seconds of each stage."""

    metrics: dict[str, Any]
    seconds: dict[str, float]


def train(
    catalogue: Catalogue,
    interactions: Interactions,
    out: Path,
    config: Config,
    *,
    app: str,
    holdout: float = 0.2,
    wandb: str | None = None,
    adapted: bool = False,
    address: str | None = None,
) -> Trained:
    """Learn a policy from the earliest 1 - holdout of the log's time and judge it on the rest; write a checkpoint.

    The warm start learns from the first 90 % of that part. The policy that comes of it then decides along what users
    did in the last 10 %, which it has not seen; the policy gradient learns from these logged decisions. An interrupted
    warm start goes on when the same call is made again. The curves are in `out/runs`, and in `wandb`'s project if one
    is named. `adapted` first fine-tunes the language model on what the log says of texts. With the `address` of a Ray
    cluster, or "auto", the catalogue is encoded and the warm start runs there. Raises `TableError` where nothing is
    liked.
    """
    watch = _Stopwatch()
    part = _Part.of(catalogue, interactions, holdout)
    out.mkdir(parents=True, exist_ok=True)
    journal = Several(
        [TensorBoard(out / "runs"), *([WeightsAndBiases(wandb, asdict(config))] if wandb else [])]
    )
    workers = ray_cluster.join(address) if address else 0

    encode = _encoder(part, out / "encoder", config, adapted, workers)
    network = _network(encode, part, config)
    watch.lap("encode")

    unfinished = (
        out
        / f"unfinished-{hashlib.sha256(f'{part.data}{config}{adapted}'.encode()).hexdigest()[:16]}.pt"
    )
    if workers:
        warm = _on_cluster(network, part, config, journal, unfinished.with_suffix(""), workers)
    else:
        warm = warm_start(
            network, part.histories, config, part.repeats, part.trends, journal, unfinished
        )
    watch.lap("warm start")

    gradient = _policy_gradient(network, part, config, journal)
    watch.lap("policy gradient")

    metrics: dict[str, Any] = {
        "log": part.facts(),
        "warm_start": {"epochs": len(warm.loss), "loss": warm.loss, "validation": warm.validation},
        "policy_gradient": gradient,
    }
    if holdout > 0:
        metrics["ranking"] = ranking_report.tables(
            network, interactions, part.split, part.kinds, config.slate
        )
    watch.lap("judge")

    queries = queries_of(histories_of(interactions, part.kinds, part.split), part.repeats)
    checkpoint.save(
        out, network, catalogue, config, _facts(app, part), metrics, part.trends, queries=queries
    )
    unfinished.unlink(missing_ok=True)
    watch.lap("write")
    return Trained(metrics, watch.seconds)


@dataclass(frozen=True)
class _Part:
    """The part of a log that is learned from: `past`, up to `split`, of which what is later than `inner` validates."""

    catalogue: Catalogue
    past: Interactions
    inner: int
    split: int

    @staticmethod
    def of(catalogue: Catalogue, log: Interactions, holdout: float) -> _Part:
        split = quantile(log.time, 1.0 - holdout)
        past = log.select(log.time <= split)
        if not (past.reward > 0).any():
            raise TableError(
                f"the log: expected at least one reward above 0 up to second {split}, found none to learn"
            )
        return _Part(catalogue, past, quantile(log.time, (1.0 - holdout) * INNER_SPLIT), split)

    @cached_property
    def data(self) -> str:
        return content_hash(self.catalogue.ids, self.past)

    @cached_property
    def histories(self) -> list[History]:
        return histories_of(self.past, self.kinds, self.inner)

    @cached_property
    def kinds(self) -> list[str]:
        return kinds_of(self.past)

    @cached_property
    def codes(self) -> np.ndarray:
        return np.array([self.kinds.index(kind) for kind in self.past.kinds], np.int64)

    @cached_property
    def repeats(self) -> bool:
        return repeated_share(self.past) > REPEATS

    @cached_property
    def trends(self) -> Trends:
        liked = self.past.reward > 0
        return Trends.of(
            self.past.user[liked], self.past.item[liked], self.past.time[liked], len(self.catalogue)
        )

    def facts(self) -> dict[str, Any]:
        users = int(np.unique(self.past.user).size)
        return {
            "events": len(self.past),
            "users": users,
            "items": len(self.catalogue),
            "repeats": self.repeats,
        }


def _encoder(part: _Part, folder: Path, config: Config, adapted: bool, workers: int) -> Encode:
    """Write the language model, adapted if asked, into a folder, and return what encodes texts with it."""
    model = LanguageModel(config.language_model, config.max_tokens)
    model.model.to("cuda" if torch.cuda.is_available() else "cpu")
    if adapted:
        settings = Adaptation(seed=config.seed)
        known = part.past.select(part.past.time <= part.inner)
        pairs = pairs_of(known, settings.days, settings.pairs, np.random.default_rng(config.seed))
        adapt(model, part.catalogue.texts, pairs, settings)
    model.save(folder)
    return (
        partial(ray_cluster.encode, str(folder), config.max_tokens, workers)
        if workers
        else model.encode
    )


def _network(encode: Encode, part: _Part, config: Config) -> PolicyNetwork:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = torch.from_numpy(encode(part.catalogue.texts, "encode items"))
    contexts = torch.from_numpy(encode(part.past.contexts, "encode contexts"))
    torch.manual_seed(config.seed)
    network = PolicyNetwork(config, text, contexts, len(part.kinds)).to(device)
    if config.linear_start:
        linear_init.begin(
            network, linear_init.factors(part.histories, len(part.catalogue), config.dim)
        )
    return network


def _on_cluster(
    network: PolicyNetwork,
    part: _Part,
    config: Config,
    journal: MetricLogger,
    folder: Path,
    workers: int,
) -> Trace:
    """Run the warm start on a cluster, from shards in `folder` that are gone when it is done."""
    count = min(len(part.histories), 4 * workers)
    shards = spread(part.histories, folder / "shards", len(part.catalogue), part.kinds, count)
    shards = replace(shards, fresh_after=part.inner)
    trace = ray_cluster.warm_start(
        network, shards, config, part.repeats, part.trends, folder, workers
    )
    for epoch, (loss, validation) in enumerate(zip(trace.loss, trace.validation, strict=True)):
        journal.add("warm start", epoch, {"loss": loss, "validation": validation})
    shutil.rmtree(folder)
    return trace


def _policy_gradient(
    network: PolicyNetwork, part: _Part, config: Config, journal: MetricLogger
) -> dict[str, Any]:
    """Let the network decide along what users did after the inner split, learn from that, and return the metrics.

    What is in fashion is that of the inner split while it decides, and of the end of the part from then on.
    """
    network.follow(part.trends, part.inner // DAY)
    ways = trajectories(part.past, part.inner, part.split)
    histories, decisions, replays = rollout.logged_replays(network, ways, part.codes, config)
    trace = policy_gradient(network, histories, decisions, config, part.repeats, journal=journal)
    network.follow(part.trends, part.split // DAY)
    _gate_unseen_kinds(network, part)
    return {
        "decisions": len(decisions),
        "logged_ctr": float(
            sum(one.clicks.sum() for one in replays) / max(1, sum(one.shown for one in replays))
        ),
        "surrogate": trace.loss,
        "kl": trace.kl,
    }


def _facts(app: str, part: _Part) -> CheckpointMetadata:
    return CheckpointMetadata(
        app=app,
        release=1,
        parent=0,
        kinds=part.kinds,
        repeats=part.repeats,
        log_from=int(part.past.time.min()),
        log_to=part.split,
        data_sha256=part.data,
    )


def _gate_unseen_kinds(network: PolicyNetwork, part: _Part) -> None:
    """Let kinds that the log lacks move the state as its most frequent liked kind does."""
    liked = part.past.kind[part.past.reward > 0]
    if not len(liked):
        return
    usual = part.kinds.index(part.past.kinds[int(np.bincount(liked).argmax())])
    missing = [code for code, kind in enumerate(part.kinds) if kind not in part.past.kinds]
    with torch.no_grad():
        network.kind[missing] = network.kind[usual].clone()


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
