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
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.jobs.candidate import evaluate_candidate
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.training.context import TrainingContext
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
    made it worse on every inner split. The popularity counts continue the checkpoint's, unless the
    log begins more than 28 days after those end: then they stay unchanged. Raises
    `TooFewDecisionsError` for fewer than 100 usable decisions, and `FileExistsError` when a held
    candidate's folder has a checkpoint already.
    """
    serving = checkpoint.load(source)
    network, facts, popularity = serving.network, serving.metadata, serving.popularity
    log, found = _read(events, serving.catalogue.ids, facts.kinds, network.text.shape[1])
    if len(found.decisions) < MIN_DECISIONS:
        raise TooFewDecisionsError(
            f"{events}: expected at least {MIN_DECISIONS} decisions with outcomes, found {len(found.decisions)}"
            f" (dropped: {dict(found.dropped)}); collect more before retraining"
        )
    network.contexts = torch.from_numpy(found.contexts)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = replace(serving.config, seed=seed, supervision=0.0)
    context = TrainingContext(network, found.histories, config, facts.repeats)

    judged = evaluate_candidate(context, found, facts)
    verdict = judged["gate"]
    metrics: dict[str, Any] = {"log": asdict(log) | {"dropped": dict(found.dropped)}, "ope": judged}
    if not verdict["passed"] and not ship_anyway:
        _hold(out, metrics)
        return RetrainResult(facts.release + 1, metrics, False, verdict["reasons"])
    curves = policy_gradient(context, found.decisions)
    metrics["policy_gradient"] = {
        "decisions": len(found.decisions),
        "surrogate": curves.loss,
        "kl": curves.kl,
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
    metrics["popularity"] = (
        "continued"
        if goes_on
        else f"unchanged: the log begins over {MAX_GAP_DAYS} days after it ends"
    )
    if goes_on:
        popularity = popularity.plus(popularity_of(found.histories, len(serving.catalogue)))
        network.set_popularity_day(popularity, following.log_to // DAY)
    queries = queries_of(found.histories, facts.repeats)
    retrained = replace(serving, config=config, metadata=following, popularity=popularity)
    checkpoint.save(out, retrained, metrics, queries=queries, encoder=source / "encoder")
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


def popularity_of(histories: Sequence[History], items: int) -> PopularityHistory:
    """Count the likes of each day, without events that a state reset repeats."""
    counts = [len(history) - history.n_replayed for history in histories]
    users = np.repeat(np.arange(len(histories)), counts)
    rows = np.concatenate([history.items[history.n_replayed :] for history in histories])
    times = np.concatenate([history.times[history.n_replayed :] for history in histories])
    liked = np.concatenate([history.liked[history.n_replayed :] for history in histories])
    return PopularityHistory.of(users[liked], rows[liked], times[liked], items)
