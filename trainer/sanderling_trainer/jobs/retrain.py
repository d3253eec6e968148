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

import torch

from sanderling.errors import SanderlingError
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.jobs.candidate import evaluate_candidate
from sanderling_trainer.jobs.trust import anomalies, believed
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
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
    trained on all users. The popularity counts of the checkpoint are continued, unless the log
    begins more than 28 days after their end. Returns what was written, and the gate's reasons.

    Raises `TooFewDecisionsError` for fewer than 100 usable decisions, and `FileExistsError` when a
    blocked candidate's folder has a checkpoint already.
    """
    active = checkpoint.load(source)
    network = active.network
    metadata = active.metadata
    log, examples = _read(events, active.catalog.ids, metadata.kinds, network.text.shape[1])
    examples = believed(examples, metadata, active.config)
    _check_enough(events, examples)

    network.contexts = torch.from_numpy(examples.contexts)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    # The policy gradient alone: cross-entropy on the few users of one log made the policy worse on
    # every inner split.
    config = replace(active.config, seed=seed, supervision=0.0)
    context = TrainingContext(network, examples.histories, config, metadata.repeats)

    report = evaluate_candidate(context, examples.decisions, metadata)
    gate = report["gate"]
    counts = asdict(log) | {"dropped": dict(examples.dropped)}
    metrics: dict[str, Any] = {
        "log": counts,
        "anomalies": anomalies(examples, active.catalog.ids, log.events_of),
        "ope": report,
    }
    if not gate["passed"] and not ship_anyway:
        _write_metrics(out, metrics)
        return RetrainResult(metadata.release + 1, metrics, False, gate["reasons"])

    curves = policy_gradient(context, examples.decisions)
    metrics["policy_gradient"] = {
        "decisions": len(examples.decisions),
        "surrogate": curves.loss,
        "kl": curves.kl,
    }
    next_metadata = _next_release(metadata, log)
    popularity = active.popularity
    if next_metadata.log_from - metadata.log_to > MAX_GAP_DAYS * DAY:
        metrics["popularity"] = f"unchanged: the log begins over {MAX_GAP_DAYS} days after it ends"
    else:
        metrics["popularity"] = "continued"
        popularity = popularity.plus(
            PopularityHistory.of_histories(examples.histories, len(active.catalog))
        )
        network.set_popularity_day(popularity, next_metadata.log_to // DAY)

    queries = queries_of(examples.histories, metadata.repeats)
    retrained = replace(active, config=config, metadata=next_metadata, popularity=popularity)
    checkpoint.save(out, retrained, metrics, queries=queries, encoder=source / "encoder")
    return RetrainResult(next_metadata.release, metrics, True, gate["reasons"])


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


def _check_enough(events: str, examples: Examples) -> None:
    """Raise `TooFewDecisionsError` unless there is enough to learn from."""
    if len(examples.decisions) < MIN_DECISIONS:
        raise TooFewDecisionsError(
            f"{events}: expected at least {MIN_DECISIONS} usable decisions with outcomes, "
            f"found {len(examples.decisions)} (dropped: {dict(examples.dropped)}); "
            "collect more before retraining"
        )


def _next_release(metadata: CheckpointMetadata, log: LogSummary) -> CheckpointMetadata:
    return replace(
        metadata,
        release=metadata.release + 1,
        parent=metadata.release,
        log_from=log.earliest // 1000,
        log_to=log.latest // 1000,
        data_sha256=log.sha256(),
    )


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
