"""Judges a retrained policy off policy, against the active one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.jobs.trust import active_policy
from sanderling_trainer.policy import rollout
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.training.context import TrainingContext

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def judge_candidate(
    active: TrainingContext,
    candidate: TrainingContext,
    decisions: Decisions,
    metadata: CheckpointMetadata,
) -> dict[str, Any]:
    """Return the off-policy report of a candidate, exactly as it would ship.

    `decisions` are those that the candidate did not learn from, and `metadata` is the active
    release's. Neither network changes.
    """

    def orders_at(judged: Decisions) -> ope.Orders:
        return orders_of(active, candidate, judged)

    policy = active_policy(metadata, active.config)
    rng = np.random.default_rng(candidate.config.seed)
    n_items = len(active.network.bias)
    return ope.evaluate_candidate(decisions, policy, orders_at, n_items, rng)


def orders_of(
    active: TrainingContext, candidate: TrainingContext, decisions: Decisions
) -> ope.Orders:
    """Return what candidate and active policy rank first at some decisions.

    Where the device logged its pool, that is what the active policy ranked first, and the candidate
    ranks what was in it, or was below it in the active policy's order. Items with the same score
    count as ranked alike.
    """
    config = candidate.config
    epsilon = config.epsilons(decisions.items.shape[1], decisions.pinned_guarded)
    regular = ope.regular_epsilon(epsilon, epsilon * config.newcomers)
    shown = np.maximum(decisions.items, 0)
    m, n_items = len(decisions), len(active.network.bias)
    ranks = np.zeros(shown.shape, np.int64)
    items = np.zeros((m, min(max(config.pool, config.slate), n_items)), np.int64)
    logged_items = np.zeros((m, min(int(decisions.pool.max(initial=1)), n_items)), np.int64)
    for rows, log_active, log_candidate in rollout.slate_policies(active, candidate, decisions):
        ranks[rows] = _ranks(log_candidate, shown[rows])
        items[rows] = _first(log_candidate, items.shape[1])
        first = _first(log_active, logged_items.shape[1])
        logged_items[rows] = _with_logged_pools(first, decisions.logged_pools(rows))
    return ope.Orders(
        ranks=ranks,
        items=items,
        logged_items=logged_items,
        pool=np.minimum(max(config.pool, config.slate), decisions.eligible),
        epsilon=np.where((decisions.newcomers > 0)[:, None], regular, epsilon),
    )


def _ranks(log_policy: Floats, shown: Ints) -> Ints:
    """Return the ranks int64 [q, K] of the shown items by log π [q, n]."""
    of_shown = np.take_along_axis(log_policy, shown, axis=1)
    above = [(log_policy > of_slot[:, None]).sum(axis=1) for of_slot in of_shown.T]
    return np.stack(above, axis=1)


def _first(log_policy: Floats, count: int) -> Ints:
    """Return the `count` best items by log π [q, n], best first, int64 [q, count]."""
    head = np.argpartition(-log_policy, count - 1, axis=1)[:, :count]
    head_policy = np.take_along_axis(log_policy, head, axis=1)
    order = np.argsort(-head_policy, axis=1, kind="stable")
    return np.take_along_axis(head, order, axis=1)


def _with_logged_pools(items: Ints, pools: Ints) -> Ints:
    """Return first items int64 [q, M], of which logged pools int64 [q, M'] replace whole rows."""
    is_logged = (pools >= 0).any(axis=1)
    replaced = np.full((int(is_logged.sum()), items.shape[1]), -1)
    replaced[:, : pools.shape[1]] = pools[is_logged]
    items[is_logged] = replaced
    return items
