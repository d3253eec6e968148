"""The retrain job: segments and a checkpoint in, the next checkpoint out, with its off-policy
judgement.

Idempotent: the same segments and seed give the same checkpoint, or none where the gate holds it.
Refuses to publish anything.
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
from sanderling_trainer.data.popularity import DAY, Trends
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.jobs.candidate import evaluate_candidate
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.training.policy_gradient import policy_gradient

MIN_DECISIONS = 100
MAX_GAP_DAYS = 28


class TooFewDecisionsError(SanderlingError):
    """The segments hold too few usable decisions to learn from."""


@dataclass(frozen=True)
class RetrainResult:
    """The next release's number and metrics; `written` tells whether its checkpoint was, `reasons`
    why it was held.
    """

    release: int
    metrics: dict[str, Any]
    written: bool
    reasons: list[str]


def retrain(
    events: str, source: Path, out: Path, *, seed: int, ship_anyway: bool = False
) -> RetrainResult:
    """Learn from the logged propensities of the devices' decisions; write the checkpoint of the
    next release.

    A third of the users is kept from learning and judges the candidate off policy. Where the gate
    holds it, `out` gets its `metrics.json` alone, unless `ship_anyway`; else the checkpoint is
    learned from all users, by the policy gradient alone: cross-entropy on the few users of one log
    made it worse on every inner split. The trends go on from the checkpoint's, unless the log
    begins more than 28 days after those end: then they stay as they were. Raises `TooFewDecisionsError`
    for fewer than 100 usable decisions, and `FileExistsError` when a held candidate's folder has a
    checkpoint already.
    """
    network, catalogue, config, facts, trends = checkpoint.load(source)
    log, found = _read(events, catalogue.ids, facts.kinds, network.text.shape[1])
    if len(found.decisions) < MIN_DECISIONS:
        raise TooFewDecisionsError(
            f"{events}: expected at least {MIN_DECISIONS} decisions with outcomes, found {len(found.decisions)}"
            f" (dropped: {dict(found.dropped)}); collect more before retraining"
        )
    network.contexts = torch.from_numpy(found.contexts)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = replace(config, seed=seed, supervision=0.0)

    judged = evaluate_candidate(network, found, config, facts)
    verdict = judged["gate"]
    metrics: dict[str, Any] = {"log": asdict(log) | {"dropped": dict(found.dropped)}, "ope": judged}
    if not verdict["passed"] and not ship_anyway:
        _hold(out, metrics)
        return RetrainResult(facts.release + 1, metrics, False, verdict["reasons"])
    trace = policy_gradient(network, found.histories, found.decisions, config, facts.repeats)
    metrics["policy_gradient"] = {
        "decisions": len(found.decisions),
        "surrogate": trace.loss,
        "kl": trace.kl,
    }
    following = replace(
        facts,
        release=facts.release + 1,
        parent=facts.release,
        log_from=log.earliest // 1000,
        log_to=log.latest // 1000,
        data_sha256=log.sha256(),
    )
    goes_on = following.log_from - facts.log_to <= MAX_GAP_DAYS * DAY
    metrics["trends"] = (
        "carried on" if goes_on else f"kept: the log begins over {MAX_GAP_DAYS} days after them"
    )
    if goes_on:
        trends = trends.plus(popularity_of(found.histories, len(catalogue)))
        network.follow(trends, following.log_to // DAY)
    queries = queries_of(found.histories, facts.repeats)
    checkpoint.save(
        out, network, catalogue, config, following, metrics, trends, source / "encoder", queries
    )
    return RetrainResult(following.release, metrics, True, verdict["reasons"])


def _read(
    events: str, ids: Sequence[str], kinds: Sequence[str], text_dim: int
) -> tuple[LogSummary, Examples]:
    """Read a log in parts: what was counted in it, and the examples of all."""
    facts = LogSummary()

    def parts() -> Iterator[Examples]:
        for log in read_partitions(events):
            facts.add(log)
            yield examples_of(log, ids, kinds, text_dim)

    return facts, merge_examples(parts())


def _hold(out: Path, metrics: dict[str, Any]) -> None:
    if (out / "policy.safetensors").exists():
        raise FileExistsError(
            f"expected no checkpoint in {out}, for the gate holds this one; choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def popularity_of(histories: Sequence[History], items: int) -> Trends:
    """Count what was liked when, by events that are told for the first time."""
    users = np.repeat(
        np.arange(len(histories)), [len(history) - history.told for history in histories]
    )
    rows = np.concatenate([history.items[history.told :] for history in histories])
    times = np.concatenate([history.times[history.told :] for history in histories])
    liked = np.concatenate([history.liked[history.told :] for history in histories])
    return Trends.of(users[liked], rows[liked], times[liked], items)
