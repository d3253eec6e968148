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
        config = candidate.config
        epsilon = config.epsilons(judged.items.shape[1])
        regular = ope.regular_epsilon(epsilon, epsilon * config.newcomers)
        _, logged_items = _greedy_order(active, judged)
        ranks, items = _greedy_order(candidate, judged)
        return ope.Orders(
            ranks=ranks,
            items=items,
            logged_items=logged_items,
            pool=np.minimum(max(config.pool, config.slate), judged.eligible),
            epsilon=np.where((judged.newcomers > 0)[:, None], regular, epsilon),
        )

    policy = active_policy(metadata, active.config)
    rng = np.random.default_rng(candidate.config.seed)
    n_items = len(active.network.bias)
    return ope.evaluate_candidate(decisions, policy, orders_at, n_items, rng)


def _greedy_order(
    context: TrainingContext, decisions: Decisions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the shown items' ranks int64 [m, K] in the network's order, and its first items [m,
    M].
    """
    config = context.config
    n_items = len(context.network.bias)
    largest_pool = max(config.pool, config.slate, decisions.pool.max(initial=1))
    n_first = int(min(largest_pool, n_items))
    ranks = np.zeros(decisions.items.shape, np.int64)
    first = np.zeros((len(decisions), n_first), np.int64)
    for rows, log_policy in rollout.slate_policy(context, decisions):
        shown_items = np.maximum(decisions.items[rows], 0)
        shown = np.take_along_axis(log_policy, shown_items, axis=1)
        for slot in range(shown.shape[1]):
            ranks[rows, slot] = (log_policy > shown[:, slot : slot + 1]).sum(axis=1)

        head = np.argpartition(-log_policy, n_first - 1, axis=1)[:, :n_first]
        head_policy = np.take_along_axis(log_policy, head, axis=1)
        order = np.argsort(-head_policy, axis=1, kind="stable")
        first[rows] = np.take_along_axis(head, order, axis=1)
    return ranks, first
