"""A retrained policy beside the serving one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.examples import Examples
from sanderling_trainer.policy import checkpoint, rollout
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient


def evaluate_candidate(
    context: TrainingContext, found: Examples, metadata: checkpoint.CheckpointMetadata
) -> dict[str, Any]:
    """Estimate, on users kept aside, the click rate of a candidate that learned from the others."""
    config = context.config
    rng = np.random.default_rng(config.seed)
    groups = np.unique(found.decisions.group)
    aside = np.isin(
        found.decisions.group, rng.choice(groups, max(1, len(groups) // 3), replace=False)
    )
    candidate = replace(context, network=copy.deepcopy(context.network))
    policy_gradient(candidate, found.decisions.take(~aside))

    def candidate_at(decisions: Decisions) -> ope.Candidate:
        _, serving_pool = _order(context, decisions)
        ranks, pool_items = _order(candidate, decisions)
        items = len(context.network.bias)
        return _candidate(decisions, ranks, pool_items, serving_pool, config, items)

    serving = ope.ServingPolicy(metadata.release, config.pool, config.epsilon)
    return ope.evaluate_candidate(
        found.decisions.take(aside), serving, candidate_at, np.random.default_rng(config.seed)
    )


def _candidate(
    decisions: Decisions,
    ranks: np.ndarray,
    pool_items: np.ndarray,
    serving_pool: np.ndarray,
    config: Config,
    n: int,
) -> ope.Candidate:
    """Say what a policy does at the decisions: the shown items' ranks in its order, and the items
    of the two pools.
    """
    slots, pool = ranks.shape[1], np.minimum(max(config.pool, config.slate), decisions.eligible)
    clicks = (decisions.reward > 0).astype(np.float64)
    rng = np.random.default_rng(config.seed)
    exact = decisions.judged & ~decisions.noisy[:, None]
    model = ope.fit(clicks, exact, decisions.items, decisions.group, n, decisions.survived, rng)
    support = np.where(decisions.epsilon > 0, decisions.pool, slots)
    inside = np.arange(serving_pool.shape[1]) < support[:, None]
    epsilons = config.epsilons(slots)
    return ope.Candidate(
        ope.sequential_propensities(ranks, slots, pool, epsilons),
        model.predictions(decisions.items, pool_items, ranks, pool, epsilons),
        ope.unsupported_mass(pool_items, np.where(inside, serving_pool, -1), slots, pool, epsilons),
        pool,
        epsilons,
    )


def _order(context: TrainingContext, decisions: Decisions) -> tuple[np.ndarray, np.ndarray]:
    """Return the places int64 [m, K] of the shown items in the network's greedy order, and its
    first items [m, M].
    """
    config = context.config
    largest_pool = max(config.pool, config.slate, decisions.pool.max(initial=1))
    depth = int(min(largest_pool, len(context.network.bias)))
    ranks = np.zeros(decisions.items.shape, np.int64)
    first = np.zeros((len(decisions), depth), np.int64)
    for chosen, log_policy in rollout.slate_policy(context, decisions):
        shown = np.take_along_axis(log_policy, np.maximum(decisions.items[chosen], 0), axis=1)
        for slot in range(shown.shape[1]):
            ranks[chosen, slot] = (log_policy > shown[:, slot : slot + 1]).sum(axis=1)
        head = np.argpartition(-log_policy, depth - 1, axis=1)[:, :depth]
        order = np.argsort(-np.take_along_axis(log_policy, head, axis=1), axis=1, kind="stable")
        first[chosen] = np.take_along_axis(head, order, axis=1)
    return ranks, first
