"""`train`: two tables in, a policy checkpoint out. Joins encoding, the two stages of learning, and judging.

Refuses to know bundles and devices.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sanderling_trainer.data.examples import histories_of, kinds_of
from sanderling_trainer.data.tables import Catalogue, Interactions
from sanderling_trainer.data.trends import DAY, Trends
from sanderling_trainer.judge.replay import journeys
from sanderling_trainer.policy import checkpoint, foresee, linear, ranking
from sanderling_trainer.policy.checkpoint import Facts
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.fit import policy_gradient, warm_start
from sanderling_trainer.policy.journal import Several, TensorBoard, WeightsAndBiases
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
) -> Trained:
    """Learn a policy from the earliest 1 - holdout of the log's time and judge it on the rest; write a checkpoint.

    The warm start learns from the first 90 % of that part. The policy that comes of it then decides along what users
    did in the last 10 %, which it has not seen; the policy gradient learns from these logged decisions. An interrupted
    warm start goes on when the same call is made again. The curves are in `out/runs`, and in `wandb`'s project if one
    is named.
    """
    watch = _Stopwatch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    split = quantile(interactions.time, 1.0 - holdout)
    inner = quantile(interactions.time, (1.0 - holdout) * INNER_SPLIT)
    past = interactions.select(interactions.time <= split)
    kinds = kinds_of(past)
    repeats = repeated_share(past) > REPEATS

    model = LanguageModel(config.language_model, config.max_tokens)
    model.model.to(device)
    text = torch.from_numpy(model.encode(catalogue.texts, "encode items"))
    contexts = (
        torch.from_numpy(model.encode(past.contexts, "encode contexts"))
        if past.contexts
        else torch.empty(0, text.shape[1])
    )
    watch.lap("encode")

    torch.manual_seed(config.seed)
    network = PolicyNetwork(config, text, contexts, len(kinds)).to(device)
    learned = histories_of(past, kinds, inner)
    if config.linear_start:
        linear.begin(network, linear.factors(learned, len(catalogue), config.dim))
    liked = past.reward > 0
    trends = Trends.of(past.user[liked], past.item[liked], past.time[liked], len(catalogue))
    out.mkdir(parents=True, exist_ok=True)
    journal = Several([TensorBoard(out / "runs"), *([WeightsAndBiases(wandb, asdict(config))] if wandb else [])])
    unfinished = out / "unfinished.pt"
    warm = warm_start(network, learned, config, repeats, trends=trends, journal=journal, resume=unfinished)
    watch.lap("warm start")

    codes = np.array([kinds.index(kind) for kind in past.kinds], np.int64)
    network.follow(trends, inner // DAY)
    histories, decisions, replays = foresee.logged_replays(network, journeys(past, inner, split), codes, config)
    gradient = policy_gradient(network, histories, decisions, config, repeats, journal=journal)
    network.follow(trends, split // DAY)
    _gate_unseen_kinds(network, past, kinds)
    watch.lap("policy gradient")

    metrics: dict[str, Any] = {
        "log": {
            "events": len(past),
            "users": int(np.unique(past.user).size),
            "items": len(catalogue),
            "repeats": repeats,
        },
        "warm_start": {"epochs": len(warm.loss), "loss": warm.loss, "validation": warm.validation},
        "policy_gradient": {
            "decisions": len(decisions),
            "logged_ctr": float(sum(one.clicks.sum() for one in replays) / max(1, sum(one.shown for one in replays))),
            "surrogate": gradient.loss,
            "kl": gradient.kl,
        },
    }
    if holdout > 0:
        metrics["ranking"] = ranking.tables(network, interactions, split, kinds, config.slate)
    watch.lap("judge")

    facts = Facts(
        app=app,
        release=1,
        parent=0,
        kinds=kinds,
        repeats=repeats,
        log_from=int(past.time.min()),
        log_to=split,
        data_sha256=content_hash(catalogue.ids, past),
    )
    model.save(out / "encoder")
    checkpoint.save(out, network, catalogue, config, facts, metrics, trends)
    unfinished.unlink()
    watch.lap("write")
    return Trained(metrics, watch.seconds)


def quantile(times: np.ndarray, share: float) -> int:
    """Return the time at or before which this share of the events lies, in seconds."""
    ordered = np.sort(times)
    return int(ordered[max(0, min(len(ordered) - 1, int(share * len(ordered)) - 1))])


def repeated_share(log: Interactions) -> float:
    """Return the share of events whose user had the item before."""
    pairs = np.unique(np.stack([log.user, log.item]), axis=1).shape[1]
    return 1.0 - pairs / max(1, len(log))


def content_hash(ids: Sequence[str], log: Interactions) -> str:
    """Return the SHA-256 of what was learned from: the item ids, and every event's columns in order."""
    digest = hashlib.sha256("\n".join(ids).encode())
    for column in (log.user, log.item, log.time, log.reward, log.kind):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _gate_unseen_kinds(network: PolicyNetwork, log: Interactions, kinds: Sequence[str]) -> None:
    """Let kinds that the log lacks move the state as its most frequent liked kind does."""
    liked = log.kind[log.reward > 0]
    if not len(liked):
        return
    usual = kinds.index(log.kinds[int(np.bincount(liked).argmax())])
    missing = [code for code, kind in enumerate(kinds) if kind not in log.kinds]
    with torch.no_grad():
        network.kind[missing] = network.kind[usual].clone()


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
