"""Rolls a policy network out along trajectories and logged histories: scores,
replays, log policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.trajectory_replay import (
    Replay,
    Trajectory,
    replay,
    replayed_decisions,
)
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches, decision_points
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import log_policy_at, seen_items

DECISIONS = 2048  # scored at once, about; a row of scores is as long as the catalog


def history_of(trajectory: Trajectory, kinds: NDArray[np.int64]) -> History:
    """Return a trajectory's events as one history; `kinds` maps the log's codes to the policy's."""
    before = len(trajectory.before)
    events = before + len(trajectory.later)
    return History(
        items=np.concatenate([trajectory.before, trajectory.later]),
        kinds=kinds[np.concatenate([trajectory.before_kinds, trajectory.kinds])],
        liked=np.concatenate([np.zeros(before, np.bool_), trajectory.liked]),
        contexts=np.concatenate([np.full(before, -1), trajectory.contexts]),
        is_validation=np.arange(events) >= before,
    )


@torch.no_grad()
def scores(
    network: PolicyNetwork, trajectory: Trajectory, kinds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores float32 [s, n] before each of the s later events of a trajectory."""
    device = network.bias.device
    history = history_of(trajectory, kinds)
    items = network.items()
    sequence = torch.from_numpy(history.items)[None].to(device)
    codes = torch.from_numpy(history.kinds)[None].to(device)

    states = network.states(items, sequence, codes)[0, len(trajectory.before) : -1]
    contexts = torch.from_numpy(trajectory.contexts).to(device)
    return network.logits(network.users(states, contexts), items).cpu().numpy()


def logged_replays(
    network: PolicyNetwork,
    trajectories: Sequence[Trajectory],
    kinds: NDArray[np.int64],
    config: Config,
) -> tuple[list[History], Decisions, list[Replay]]:
    """Replay trajectories with the network as the logging policy.

    Returns the histories, the logged decisions, and the replays.
    """
    rng = np.random.default_rng(config.seed + 2)
    histories = [history_of(trajectory, kinds) for trajectory in trajectories]
    replays = [
        replay(
            trajectory,
            scores(network, trajectory, kinds),
            config.slate,
            config.pool,
            config.epsilon,
            rng,
        )
        for trajectory in trajectories
    ]
    return histories, replayed_decisions(trajectories, replays), replays


@torch.no_grad()
def slate_policy(
    context: TrainingContext, decisions: Decisions
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the network's log π over all items at each decision, in parts.

    A part is the indices int64 [q] of its decisions, and log π float32 [q, n].
    """
    network = context.network
    events = context.config.batch_events
    for batch in batches(context.histories_in_memory, events, context.device):
        points = decision_points(batch, decisions)
        for rows in np.array_split(np.arange(len(points)), max(1, len(points) // DECISIONS)):
            if not len(rows):
                continue
            part = points.take(rows)
            seen = None if context.repeats else seen_items(part, len(network.bias))
            yield part.indices, log_policy_at(network, part, seen).cpu().numpy()
