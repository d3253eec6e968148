"""Evaluates a retrained policy off policy, against the active one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import Decisions, Ints
from sanderling_trainer.evaluation import ope
from sanderling_trainer.jobs.trust import active_policy
from sanderling_trainer.policy import rollout
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training.context import TrainingContext


def evaluate_candidate(
    active: TrainingContext,
    candidate: TrainingContext,
    decisions: Decisions,
    metadata: CheckpointMetadata,
) -> dict[str, Any]:
    """Return the off-policy report of a candidate beside the active policy.

    The decisions are on the histories of both contexts, and neither may have learned from them.
    """
    config = candidate.config

    def candidate_at(judged: Decisions) -> ope.Candidate:
        _, active_pool = _greedy_order(active, judged)
        ranks, pool_items = _greedy_order(candidate, judged)
        n_items = len(candidate.network.bias)
        return _candidate(judged, ranks, pool_items, active_pool, config, n_items)

    policy = active_policy(metadata, active.config)
    rng = np.random.default_rng(config.seed)
    return ope.evaluate_candidate(decisions, policy, candidate_at, rng)


# Six parameters: the two policies' orders at the same decisions, and what both are explored with.
def _candidate(
    decisions: Decisions,
    ranks: Ints,
    pool_items: Ints,
    active_pool: Ints,
    config: Config,
    n_items: int,
) -> ope.Candidate:
    """Return what a policy would have done at the decisions.

    `ranks` int64 [m, K] are those of the shown items in its greedy order, `pool_items` and
    `active_pool` int64 [m, M] the first items of its order and of the active policy's.
    """
    slots = ranks.shape[1]
    pool = np.minimum(max(config.pool, config.slate), decisions.eligible)
    epsilons = config.epsilons(slots)

    clicks = (decisions.reward > 0).astype(np.float64)
    # Rewards that may have been flipped are unbiased, but not clicks that a model could learn from.
    exact = decisions.judged & ~decisions.noisy[:, None]
    reward_examples = ope.RewardExamples(
        reward=clicks,
        judged=exact,
        items=decisions.items,
        group=decisions.group,
        pass_probability=decisions.pass_probability,
    )
    rng = np.random.default_rng(config.seed)
    model = ope.fit_reward_model(reward_examples, n_items, rng)

    # What the active policy can show: its exploration pool, or the head of its order without
    # exploration.
    support = np.where(decisions.epsilon > 0, decisions.pool, slots)
    is_supported = np.arange(active_pool.shape[1]) < support[:, None]
    supported_items = np.where(is_supported, active_pool, -1)
    return ope.Candidate(
        ope.sequential_propensities(ranks, slots, pool, epsilons),
        model.predict(decisions.items, pool_items, ranks, pool, epsilons),
        ope.unsupported_mass(pool_items, supported_items, slots, pool, epsilons),
        pool,
        epsilons,
    )


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
