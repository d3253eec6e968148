"""The retrain job: an event log and a checkpoint in, the next checkpoint and its off-policy report
out.

Idempotent: the same log and seed give the same checkpoint, or none if the release gate blocks it.
It publishes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sanderling.errors import SanderlingError
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.jobs.candidate import evaluate_candidate
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient

MIN_DECISIONS = 100
MAX_GAP_DAYS = 28


class TooFewDecisionsError(SanderlingError):
    """The log has too few usable decisions to learn from."""


@dataclass(frozen=True)
class RetrainResult:
    """The next release's number and metrics."""

    release: int
    metrics: dict[str, Any]
    written: bool
    """Whether its checkpoint was written."""
    reasons: list[str]
    """Why the release gate blocks it; empty if it passes."""


def retrain(
    events: str, source: Path, out: Path, *, seed: int, ship_anyway: bool = False
) -> RetrainResult:
    """Learn from the decisions of a log, and write the checkpoint of the next release to `out`.

    A candidate is trained on two thirds of the users and evaluated on the rest. If the release gate
    blocks it, `out` gets only its `metrics.json`, unless `ship_anyway`. Otherwise the checkpoint is
    trained on all users, by the policy gradient alone: cross-entropy on the few users of one log
    made it worse on every inner split. The popularity counts of the checkpoint are continued,
    unless the log begins more than 28 days after their end.

    Raises `TooFewDecisionsError` for fewer than 100 usable decisions, and `FileExistsError` when a
    blocked candidate's folder has a checkpoint already.
    """
    serving = checkpoint.load(source)
    network = serving.network
    metadata = serving.metadata
    log, examples = _read(events, serving.catalogue.ids, metadata.kinds, network.text.shape[1])
    if len(examples.decisions) < MIN_DECISIONS:
        raise TooFewDecisionsError(
            f"{events}: expected at least {MIN_DECISIONS} usable decisions with outcomes, "
            f"found {len(examples.decisions)} (dropped: {dict(examples.dropped)}); "
            "collect more before retraining"
        )

    network.contexts = torch.from_numpy(examples.contexts)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = replace(serving.config, seed=seed, supervision=0.0)
    context = TrainingContext(network, examples.histories, config, metadata.repeats)

    report = evaluate_candidate(context, examples.decisions, metadata)
    verdict = report["gate"]
    counts = asdict(log) | {"dropped": dict(examples.dropped)}
    metrics: dict[str, Any] = {"log": counts, "ope": report}
    if not verdict["passed"] and not ship_anyway:
        _write_metrics(out, metrics)
        return RetrainResult(metadata.release + 1, metrics, False, verdict["reasons"])

    curves = policy_gradient(context, examples.decisions)
    metrics["policy_gradient"] = {
        "decisions": len(examples.decisions),
        "surrogate": curves.loss,
        "kl": curves.kl,
    }
    following = _next_release(metadata, log)
    popularity = _continue_popularity(serving, following, examples.histories, metrics)
    queries = queries_of(examples.histories, metadata.repeats)
    retrained = replace(serving, config=config, metadata=following, popularity=popularity)
    checkpoint.save(out, retrained, metrics, queries=queries, encoder=source / "encoder")
    return RetrainResult(following.release, metrics, True, verdict["reasons"])


def popularity_of(histories: Sequence[History], n_items: int) -> PopularityHistory:
    """Count which items were liked when, without events that a state reset replayed."""
    n_new = [len(history) - history.n_replayed for history in histories]
    users = np.repeat(np.arange(len(histories)), n_new)
    rows = np.concatenate([history.items[history.n_replayed :] for history in histories])
    times = np.concatenate([history.times[history.n_replayed :] for history in histories])
    liked = np.concatenate([history.liked[history.n_replayed :] for history in histories])
    return PopularityHistory.of(users[liked], rows[liked], times[liked], n_items)


def _read(
    events: str, ids: Sequence[str], kinds: Sequence[str], text_dim: int
) -> tuple[LogSummary, Examples]:
    """Read a log in partitions; return its summary, and the examples of all."""
    summary = LogSummary()

    def partitions() -> Iterator[Examples]:
        for log in read_partitions(events):
            summary.add(log)
            yield examples_of(log, ids, kinds, text_dim)

    return summary, merge_examples(partitions())


def _next_release(metadata: CheckpointMetadata, log: LogSummary) -> CheckpointMetadata:
    return replace(
        metadata,
        release=metadata.release + 1,
        parent=metadata.release,
        log_from=log.earliest // 1000,
        log_to=log.latest // 1000,
        data_sha256=log.sha256(),
    )


def _continue_popularity(
    serving: Checkpoint,
    following: CheckpointMetadata,
    histories: Sequence[History],
    metrics: dict[str, Any],
) -> PopularityHistory:
    """Return the popularity counts with those of the log, and set the network's day; note which in
    `metrics`.
    """
    if following.log_from - serving.metadata.log_to > MAX_GAP_DAYS * DAY:
        metrics["popularity"] = f"unchanged: the log begins over {MAX_GAP_DAYS} days after it ends"
        return serving.popularity

    metrics["popularity"] = "continued"
    popularity = serving.popularity.plus(popularity_of(histories, len(serving.catalogue)))
    serving.network.set_popularity_day(popularity, following.log_to // DAY)
    return popularity


def _write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    """Write the metrics of a blocked candidate."""
    if (out / "policy.safetensors").exists():
        raise FileExistsError(
            f"expected no checkpoint in {out}, because the release gate blocks this one; "
            "choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=1) + "\n"
    (out / "metrics.json").write_text(text, encoding="utf-8")
