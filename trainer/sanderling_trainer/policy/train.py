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

from sanderling_trainer.data.examples import histories_of, kinds_of
from sanderling_trainer.data.shards import spread
from sanderling_trainer.data.splits import content_hash, quantile, repeated_share
from sanderling_trainer.data.tables import Catalogue, Interactions
from sanderling_trainer.data.trends import DAY, Trends
from sanderling_trainer.judge.replay import journeys
from sanderling_trainer.policy import checkpoint, cluster, foresee, linear, ranking
from sanderling_trainer.policy.adapt import Adaptation, adapt, pairs_of
from sanderling_trainer.policy.checkpoint import Facts
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.fit import Trace, policy_gradient, warm_start
from sanderling_trainer.policy.journal import Journal, Several, TensorBoard, WeightsAndBiases
from sanderling_trainer.policy.language_model import LanguageModel
from sanderling_trainer.policy.network import PolicyNetwork

INNER_SPLIT = 0.9
REPEATS = 0.01


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
    cluster, or "auto", the catalogue is encoded and the warm start runs there.
    """
    watch = _Stopwatch()
    part = _Part.of(interactions, len(catalogue), holdout)
    out.mkdir(parents=True, exist_ok=True)
    journal = Several([TensorBoard(out / "runs"), *([WeightsAndBiases(wandb, asdict(config))] if wandb else [])])

    data = content_hash(catalogue.ids, part.past)
    unfinished = out / f"unfinished-{hashlib.sha256(f'{data}{config}{adapted}'.encode()).hexdigest()[:16]}.pt"

    workers = cluster.join(address) if address else 0

    model = LanguageModel(config.language_model, config.max_tokens)
    model.model.to("cuda" if torch.cuda.is_available() else "cpu")
    if adapted:
        _adapt(model, catalogue, part, config)
        watch.lap("adapt")
    model.save(out / "encoder")
    encode = partial(cluster.encode, str(out / "encoder"), config.max_tokens, workers) if workers else model.encode
    network = _network(encode, catalogue, part, config)
    watch.lap("encode")

    if workers:
        warm = _on_cluster(network, part, config, journal, unfinished.with_suffix(""), workers)
    else:
        histories = histories_of(part.past, part.kinds, part.inner)
        warm = warm_start(network, histories, config, part.repeats, part.trends, journal, unfinished)
    watch.lap("warm start")

    network.follow(part.trends, part.inner // DAY)
    histories, decisions, replays = foresee.logged_replays(
        network, journeys(part.past, part.inner, part.split), part.codes, config
    )
    gradient = policy_gradient(network, histories, decisions, config, part.repeats, journal=journal)
    network.follow(part.trends, part.split // DAY)
    _gate_unseen_kinds(network, part)
    watch.lap("policy gradient")

    metrics: dict[str, Any] = {
        "log": part.facts(),
        "warm_start": {"epochs": len(warm.loss), "loss": warm.loss, "validation": warm.validation},
        "policy_gradient": {
            "decisions": len(decisions),
            "logged_ctr": float(sum(one.clicks.sum() for one in replays) / max(1, sum(one.shown for one in replays))),
            "surrogate": gradient.loss,
            "kl": gradient.kl,
        },
    }
    if holdout > 0:
        metrics["ranking"] = ranking.tables(network, interactions, part.split, part.kinds, config.slate)
    watch.lap("judge")

    checkpoint.save(out, network, catalogue, config, _facts(app, part, data), metrics, part.trends)
    unfinished.unlink(missing_ok=True)
    watch.lap("write")
    return Trained(metrics, watch.seconds)


@dataclass(frozen=True)
class _Part:
    """The part of a log that is learned from: `past`, up to `split`, of which what is later than `inner` validates."""

    past: Interactions
    items: int
    inner: int
    split: int

    @staticmethod
    def of(log: Interactions, items: int, holdout: float) -> _Part:
        split = quantile(log.time, 1.0 - holdout)
        past = log.select(log.time <= split)
        return _Part(past, items, quantile(log.time, (1.0 - holdout) * INNER_SPLIT), split)

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
        return Trends.of(self.past.user[liked], self.past.item[liked], self.past.time[liked], self.items)

    def facts(self) -> dict[str, Any]:
        users = int(np.unique(self.past.user).size)
        return {"events": len(self.past), "users": users, "items": self.items, "repeats": self.repeats}


def _adapt(model: LanguageModel, catalogue: Catalogue, part: _Part, config: Config) -> None:
    """Fine-tune on the likes before the inner split."""
    settings = Adaptation(seed=config.seed)
    known = part.past.select(part.past.time <= part.inner)
    pairs = pairs_of(known, settings.days, settings.pairs, np.random.default_rng(config.seed))
    adapt(model, catalogue.texts, pairs, settings)


def _on_cluster(
    network: PolicyNetwork, part: _Part, config: Config, journal: Journal, folder: Path, workers: int
) -> Trace:
    """Run the warm start on a cluster, from shards in `folder` that are gone when it is done."""
    histories = histories_of(part.past, part.kinds, part.inner)
    shards = spread(histories, folder / "shards", part.items, part.kinds, min(len(histories), 4 * workers))
    shards = replace(shards, fresh_after=part.inner)
    trace = cluster.warm_start(network, shards, config, part.repeats, part.trends, folder, workers)
    for epoch, (loss, validation) in enumerate(zip(trace.loss, trace.validation, strict=True)):
        journal.add("warm start", epoch, {"loss": loss, "validation": validation})
    shutil.rmtree(folder)
    return trace


def _network(
    encode: Callable[[Sequence[str], str], NDArray[np.float32]], catalogue: Catalogue, part: _Part, config: Config
) -> PolicyNetwork:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = torch.from_numpy(encode(catalogue.texts, "encode items"))
    contexts = encode(part.past.contexts, "encode contexts")
    torch.manual_seed(config.seed)
    network = PolicyNetwork(config, text, torch.from_numpy(contexts), len(part.kinds)).to(device)
    if config.linear_start:
        histories = histories_of(part.past, part.kinds, part.inner)
        linear.begin(network, linear.factors(histories, part.items, config.dim))
    return network


def _facts(app: str, part: _Part, data: str) -> Facts:
    return Facts(
        app=app,
        release=1,
        parent=0,
        kinds=part.kinds,
        repeats=part.repeats,
        log_from=int(part.past.time.min()),
        log_to=part.split,
        data_sha256=data,
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
