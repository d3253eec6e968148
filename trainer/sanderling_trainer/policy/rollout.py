"""What a policy network would do along journeys: scores and histories for replays, ranking and estimation.

Refuses to change the network.
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
from sanderling_trainer.policy.training.batches import batches, decisions_in, first_seen, seen_at
from sanderling_trainer.policy.training.objectives import log_policy_at


def history_of(journey: Trajectory, kinds: NDArray[np.int64]) -> History:
    """Return a journey's events as one history; `kinds` maps the log's kind codes to the policy's."""
    s, before = len(journey.before) + len(journey.later), len(journey.before)
    return History(
        items=np.concatenate([journey.before, journey.later]),
        kinds=kinds[np.concatenate([journey.before_kinds, journey.kinds])],
        liked=np.concatenate([np.zeros(before, np.bool_), journey.liked]),
        contexts=np.concatenate([np.full(before, -1), journey.contexts]),
        fresh=np.arange(s) >= before,
    )


@torch.no_grad()
def scores(
    network: PolicyNetwork, journey: Trajectory, kinds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores float32 [s, n] before each later event of a journey."""
    history, before, device = history_of(journey, kinds), len(journey.before), network.bias.device
    items = network.items()
    sequence, codes = (
        torch.from_numpy(column)[None].to(device) for column in (history.items, history.kinds)
    )
    states = network.states(items, sequence, codes)[0, before:-1]
    contexts = torch.from_numpy(journey.contexts).to(device)
    return network.logits(network.users(states, contexts), items).cpu().numpy()


def logged_replays(
    network: PolicyNetwork, found: Sequence[Trajectory], kinds: NDArray[np.int64], config: Config
) -> tuple[list[History], Decisions, list[Replay]]:
    """Replay journeys with the network as the logging policy; return histories, logged decisions, and the replays."""
    rng = np.random.default_rng(config.seed + 2)
    histories = [history_of(journey, kinds) for journey in found]
    replays = [
        replay(
            journey, scores(network, journey, kinds), config.slate, config.pool, config.epsilon, rng
        )
        for journey in found
    ]
    decisions = replayed_decisions(found, replays)
    return histories, decisions, replays


@torch.no_grad()
def slate_policy(
    network: PolicyNetwork,
    histories: Sequence[History],
    decisions: Decisions,
    config: Config,
    repeats: bool,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield, batch by batch, which decisions (int64 [q]) and the network's log π over all items (float32 [q, n])."""
    for batch in batches(histories, config.batch_events, network.bias.device):
        chosen, place = decisions_in(batch, decisions)
        for part in np.array_split(np.arange(len(chosen)), max(1, len(chosen) // 2048)):
            if not len(part):
                continue
            where, at = place[part], torch.from_numpy(decisions.at[chosen[part]]).to(place.device)
            contexts = torch.from_numpy(decisions.context[chosen[part]]).to(place.device)
            seen = None if repeats else seen_at(first_seen(batch, len(network.bias)), where, at)
            yield (
                chosen[part],
                log_policy_at(network, batch, where, at, contexts, seen).cpu().numpy(),
            )
