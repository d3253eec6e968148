"""The retrain job: segments and a checkpoint in, the next checkpoint out, with its off-policy judgement.

Idempotent: the same segments and seed give the same checkpoint. Refuses to publish anything.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sanderling.errors import SanderlingError
from sanderling_trainer.data.examples import Decisions, Examples, examples_of
from sanderling_trainer.data.segments import EventLog, read_segments
from sanderling_trainer.judge import ope
from sanderling_trainer.policy import checkpoint, foresee
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.fit import policy_gradient
from sanderling_trainer.policy.network import PolicyNetwork

LEAST_DECISIONS = 100


class TooLittleError(SanderlingError):
    """The segments hold too few usable decisions to learn from."""


@dataclass(frozen=True)
class Retrained:
    """The next checkpoint's release and metrics; `better` tells whether the off-policy estimate rose for certain."""

    release: int
    metrics: dict[str, Any]


def retrain(events: str, source: Path, out: Path, *, seed: int) -> Retrained:
    """Learn from the logged propensities of the devices' decisions; write the checkpoint of the next release.

    A third of the users is kept from learning and judges the candidate off policy; the checkpoint is then learned from
    all of them, by the policy gradient alone: cross-entropy on the few users of one log made it worse on every inner
    split. Raises `TooLittleError` for fewer than 100 usable decisions.
    """
    log = read_segments(events)
    network, catalogue, config, facts = checkpoint.load(source)
    found = examples_of(log, catalogue.ids, facts.kinds, network.text.shape[1])
    if len(found.decisions) < LEAST_DECISIONS:
        raise TooLittleError(
            f"{events}: expected at least {LEAST_DECISIONS} decisions with outcomes, found {len(found.decisions)}"
            f" (dropped: {dict(found.dropped)}); collect more before retraining"
        )
    network.contexts = torch.from_numpy(found.contexts)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = replace(config, seed=seed, supervision=0.0)

    judged = _judge(network, found, config, facts.repeats)
    trace = policy_gradient(network, found.histories, found.decisions, config, facts.repeats)
    metrics = {
        "log": _log_facts(log, found),
        "policy_gradient": {"decisions": len(found.decisions), "surrogate": trace.loss, "kl": trace.kl},
        "ope": judged,
    }
    digest = hashlib.sha256("\n".join(sorted(log.time)).encode()).hexdigest()
    times = [stamp // 1000 for stamp in log.time.values()]
    following = replace(
        facts,
        release=facts.release + 1,
        parent=facts.release,
        log_from=min(times),
        log_to=max(times),
        data_sha256=digest,
    )
    checkpoint.save(out, network, catalogue, config, following, metrics, encoder=source / "encoder")
    return Retrained(following.release, metrics)


def _judge(network: PolicyNetwork, found: Examples, config: Config, repeats: bool) -> dict[str, Any]:
    """Estimate, on users kept aside, the click rate of a candidate that learned from the others."""
    rng = np.random.default_rng(config.seed)
    groups = np.unique(found.decisions.group)
    aside = np.isin(found.decisions.group, rng.choice(groups, max(1, len(groups) // 3), replace=False))
    candidate = copy.deepcopy(network)
    learned = _select(found.decisions, ~aside)
    policy_gradient(candidate, found.histories, learned, config, repeats)
    decisions = _select(found.decisions, aside)
    logged = _sequential(decisions.ranks, config)
    target = _sequential(_ranks(candidate, found, decisions, config, repeats), config)
    return ope.report(decisions, logged, target, np.random.default_rng(config.seed))


def _sequential(ranks: np.ndarray, config: Config) -> Any:
    return ope.sequential_propensities(ranks, ranks.shape[1], config.pool, config.epsilon)


def _ranks(network: PolicyNetwork, found: Examples, decisions: Decisions, config: Config, repeats: bool) -> np.ndarray:
    """Return int64 [m, K]: the places of the shown items in the network's own greedy order."""
    ranks = np.zeros(decisions.items.shape, np.int64)
    for chosen, log_policy in foresee.slate_policy(network, found.histories, decisions, config, repeats):
        shown = np.take_along_axis(log_policy, np.maximum(decisions.items[chosen], 0), axis=1)
        for slot in range(shown.shape[1]):
            ranks[chosen, slot] = (log_policy > shown[:, slot : slot + 1]).sum(axis=1)
    return ranks


def _select(decisions: Decisions, mask: np.ndarray) -> Decisions:
    return Decisions(**{name: column[mask] for name, column in vars(decisions).items()})


def _log_facts(log: EventLog, found: Examples) -> dict[str, Any]:
    return {
        "received": log.received,
        "duplicates": log.duplicates,
        "conflicts": log.conflicts,
        "missing": log.missing,
        "decisions": log.decisions(),
        "outcomes": log.outcomes(),
        "observations": log.observations(),
        "dropped": dict(found.dropped),
    }
