"""Scores of a policy network at a cut of the log, and its log π at logged decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.trajectory_replay import Trajectory
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches, decision_points, groups
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import (
    boosted,
    hidden_items,
    log_policy_of,
    scores_of,
)

EVENTS = 16_384  # of histories, padding included, read at once
SCORES = 2**22  # of decisions at once, 16 MB; a decision has two of each item of the catalog


@torch.no_grad()
def scores_at_cut(
    network: PolicyNetwork, users: Sequence[Trajectory], kinds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores float32 [u, n] at the cut, in the context of the first event after it.

    `kinds` maps the log's codes to the policy's.
    """
    device = network.bias.device
    items = network.items()
    scored = np.empty((len(users), len(network.bias)), np.float32)
    # A user without a history is a history of no events, which `groups` would leave out.
    lengths = [len(user.before) + 1 for user in users]
    for rows in groups(lengths, EVENTS):
        sequence = np.full((len(rows), max(lengths[row] for row in rows)), -1, np.int64)
        codes = np.zeros_like(sequence)
        for place, row in enumerate(rows):
            before = users[row].before
            sequence[place, : len(before)] = before
            codes[place, : len(before)] = kinds[users[row].before_kinds]

        states = network.states(
            items, torch.from_numpy(sequence).to(device), torch.from_numpy(codes).to(device)
        )
        last = torch.tensor([lengths[row] - 1 for row in rows], device=device)
        contexts = [users[row].contexts[0] if len(users[row].contexts) else -1 for row in rows]
        at_cut = states[torch.arange(len(rows), device=device), last]
        vectors = network.users(at_cut, torch.tensor(contexts, device=device))
        scored[rows] = network.logits(vectors, items).cpu().numpy()
    return scored


@torch.no_grad()
def slate_policies(
    logging: TrainingContext, other: TrainingContext, decisions: Decisions
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield log π of two networks over all items at each decision, in parts.

    A part is the indices int64 [q] of its decisions, and log π float32 [q, n] of the policy that
    took them and of another one, both -inf for what could not be shown (`hidden_items`) and with
    what the app added to scores. The two contexts have the same histories.
    """
    networks = logging.network, other.network
    items = [network.items() for network in networks]
    at_once = max(1, SCORES // (2 * len(items[0])))
    for batch in batches(logging.histories_in_memory, other.config.batch_events, other.device):
        points = decision_points(batch, decisions)
        states = [
            network.states(vectors, batch.items, batch.kinds)
            for network, vectors in zip(networks, items, strict=True)
        ]
        for start in range(0, len(points), at_once):
            part = points.take(np.arange(start, min(start + at_once, len(points))))
            of_logging, of_other = (
                boosted(decisions, part, scores_of(*each, part))
                for each in zip(networks, items, states, strict=True)
            )
            hidden = hidden_items(decisions, part, of_logging, logging.repeats)
            yield (
                part.indices,
                log_policy_of(of_logging, hidden).cpu().numpy(),
                log_policy_of(of_other, hidden).cpu().numpy(),
            )
