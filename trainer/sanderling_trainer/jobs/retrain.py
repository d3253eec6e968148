"""The retrain job: an event log and a checkpoint in, the next checkpoint and its off-policy report
out.

Idempotent: the same log and seed give the same checkpoint, or none if the release gate holds it.
It publishes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.errors import SanderlingError
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.evaluation.ope import HOLD
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.jobs.candidate import held_out_decisions, judge_candidate
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
    verdict: str
    """The release gate's: `ship`, `canary` or `hold`."""
    reasons: list[str]
    """Why the release gate does not ship it to all; empty if it does."""


def retrain(
    events: str, source: Path, out: Path, *, seed: int, ship_anyway: bool = False
) -> RetrainResult:
    """Learn from the decisions of a log, and write the checkpoint of the next release to `out`.

    The candidate learns from two thirds of the installs, and is judged on the others exactly as it
    would ship: with its own day's popularity, which continues the checkpoint's counts by the
    histories that were learned from, unless the log begins more than 28 days after their end. If
    the release gate holds it, `out` gets only its `metrics.json`, unless `ship_anyway`. Returns
    what was written, the verdict, and the gate's reasons.

    Raises `TooFewDecisionsError` for fewer than 100 usable decisions, and `FileExistsError` when a
    held candidate's folder has a checkpoint already.
    """
    active = checkpoint.load(source)
    metadata = active.metadata
    log, examples = _read(events, active.catalog.ids, metadata.kinds, active.network.text.shape[1])
    active.network.contexts = torch.from_numpy(examples.contexts)
    active.network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    # The policy gradient alone: cross-entropy on the few users of one log made the policy worse on
    # every inner split.
    config = replace(active.config, seed=seed, supervision=0.0)
    context = TrainingContext(active.network, examples.histories, config, metadata.repeats)
    candidate = replace(context, network=copy.deepcopy(active.network))

    held_out = held_out_decisions(examples.decisions, np.random.default_rng(seed))
    curves = policy_gradient(candidate, examples.decisions.take(~held_out))
    next_metadata = _next_release(metadata, log)
    popularity, continued = _popularity(active, examples, held_out, next_metadata)
    if continued:
        candidate.network.set_popularity_day(popularity, next_metadata.log_to // DAY)

    report = judge_candidate(context, candidate, examples.decisions.take(held_out), metadata)
    gate = report["gate"]
    metrics: dict[str, Any] = {
        "sentence": report["sentence"],
        "verdict": gate["verdict"],
        "log": asdict(log) | {"dropped": dict(examples.dropped)},
        "ope": report,
        "policy_gradient": {
            "decisions": int((~held_out).sum()),
            "surrogate": curves.loss,
            "kl": curves.kl,
        },
        "popularity": "continued"
        if continued
        else f"unchanged: the log begins over {MAX_GAP_DAYS} days after it ends",
    }
    result = RetrainResult(next_metadata.release, metrics, True, gate["verdict"], gate["reasons"])
    if gate["verdict"] == HOLD and not ship_anyway:
        _write_metrics(out, metrics)
        return replace(result, written=False)

    queries = queries_of(examples.histories, metadata.repeats)
    retrained = replace(
        active,
        network=candidate.network,
        config=config,
        metadata=next_metadata,
        popularity=popularity,
    )
    checkpoint.save(out, retrained, metrics, queries=queries, encoder=source / "encoder")
    return result


def _popularity(
    active: Checkpoint,
    examples: Examples,
    held_out: NDArray[np.bool_],
    next_metadata: CheckpointMetadata,
) -> tuple[PopularityHistory, bool]:
    """Return the next release's popularity counts, and whether they continue the active one's.

    Without the histories that judge the candidate: it would have seen what they click.
    """
    if next_metadata.log_from - active.metadata.log_to > MAX_GAP_DAYS * DAY:
        return active.popularity, False

    judging = set(examples.decisions.history[held_out].tolist())
    learned = [each for at, each in enumerate(examples.histories) if at not in judging]
    counts = PopularityHistory.of_histories(learned, len(active.catalog))
    return active.popularity.plus(counts), True


def _read(
    events: str, ids: Sequence[str], kinds: Sequence[str], text_dim: int
) -> tuple[LogSummary, Examples]:
    """Read a log in partitions; return its summary, and the examples of all.

    Raises `TooFewDecisionsError`.
    """
    summary = LogSummary()

    def partitions() -> Iterator[Examples]:
        for log in read_partitions(events):
            summary.add(log)
            yield examples_of(log, ids, kinds, text_dim)

    examples = merge_examples(partitions())
    if len(examples.decisions) < MIN_DECISIONS:
        raise TooFewDecisionsError(
            f"{events}: expected at least {MIN_DECISIONS} usable decisions with outcomes, "
            f"found {len(examples.decisions)} (dropped: {dict(examples.dropped)}); "
            "collect more before retraining"
        )
    return summary, examples


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
    """Write the metrics of a held candidate."""
    if (out / "policy.safetensors").exists():
        raise FileExistsError(
            f"expected no checkpoint in {out}, because the release gate holds this one; "
            "choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=1) + "\n"
    (out / "metrics.json").write_text(text, encoding="utf-8")
