"""How well a policy ranks what users liked later, beside popularity and EASE under
the same protocols.

Nothing later than the split is read except what the ranking is measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_trainer.data.histories import kind_codes
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.evaluation.baselines import EASE, EASE_MAX_ITEMS, Popularity
from sanderling_trainer.evaluation.metrics import evaluate
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, trajectories
from sanderling_trainer.policy.model.network import PolicyNetwork

Scorer = Callable[[Sequence[Trajectory]], NDArray[np.float32]]
"""Returns scores float32 [u, n] for u trajectories."""


def tables(
    network: PolicyNetwork, log: Interactions, split: int, kinds: Sequence[str], k: int
) -> list[dict[str, Any]]:
    """Return the tables of two protocols, without those that no user can be measured by.

    Warm users: users known before the split (seconds), by what they liked after it. Fold-in:
    all users of the later time, by what they liked in the second half of it, where every
    model sees the first.
    """
    later = trajectories(log, split, int(log.time.max()))
    scorers = _scorers(network, log, split, kinds)
    protocols = {
        "warm users": [trajectory for trajectory in later if len(trajectory.before)],
        "fold-in": [_fold_in(trajectory) for trajectory in later],
    }
    return [
        _table(protocol, users, scorers, k, len(network.bias))
        for protocol, users in protocols.items()
        if any(_relevant(trajectory) for trajectory in users)
    ]


def _scorers(
    network: PolicyNetwork, log: Interactions, split: int, kinds: Sequence[str]
) -> dict[str, Scorer]:
    """Return the models by name; the baselines are fitted to the likes before the split."""
    n = len(network.bias)
    past = log.select((log.time <= split) & (log.reward > 0))
    order = np.argsort(past.user, kind="stable")
    liked = np.split(past.item[order], np.flatnonzero(np.diff(past.user[order])) + 1)

    baselines: dict[str, Popularity | EASE] = {"popularity": Popularity().fit(liked, n)}
    if n <= EASE_MAX_ITEMS:
        baselines["EASE"] = EASE().fit(liked, n)

    # Baselines know no kinds of event: they see what was not disliked.
    is_like = np.array([kind != "dislike" for kind in log.kinds])

    def baseline_scorer(model: Popularity | EASE) -> Scorer:
        return lambda users: model.scores(
            [trajectory.before[is_like[trajectory.before_kinds]] for trajectory in users]
        )

    codes = kind_codes(log.kinds, kinds)

    def policy_scorer(users: Sequence[Trajectory]) -> NDArray[np.float32]:
        return np.stack([_policy_scores(network, trajectory, codes) for trajectory in users])

    scorers = {name: baseline_scorer(model) for name, model in baselines.items()}
    return {**scorers, "Sanderling": policy_scorer}


@torch.no_grad()
def _policy_scores(
    network: PolicyNetwork, trajectory: Trajectory, codes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores float32 [n] at the split, in the context of the first event after it."""
    device = network.bias.device
    items = network.items()
    sequence = torch.from_numpy(trajectory.before)[None].to(device)
    kinds = torch.from_numpy(codes[trajectory.before_kinds])[None].to(device)
    state = network.states(items, sequence, kinds)[0, -1]

    contexts = trajectory.contexts
    context = torch.tensor(contexts[0] if len(contexts) else -1, device=device)
    return network.logits(network.users(state, context), items).cpu().numpy()


def _fold_in(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory whose split is in the middle of its later events."""
    half = len(trajectory.later) // 2
    return Trajectory(
        user=trajectory.user,
        before=np.concatenate([trajectory.before, trajectory.later[:half]]),
        before_kinds=np.concatenate([trajectory.before_kinds, trajectory.kinds[:half]]),
        later=trajectory.later[half:],
        kinds=trajectory.kinds[half:],
        liked=trajectory.liked[half:],
        contexts=trajectory.contexts[half:],
    )


def _relevant(trajectory: Trajectory) -> set[int]:
    """Return the rows liked after the split that the user did not have before."""
    liked = trajectory.later[trajectory.liked]
    return set(liked.tolist()) - set(trajectory.before.tolist())


def _table(
    protocol: str, users: Sequence[Trajectory], scorers: dict[str, Scorer], k: int, items: int
) -> dict[str, Any]:
    relevant = {trajectory.user: _relevant(trajectory) for trajectory in users}
    rows = []
    for name, scorer in scorers.items():
        slates = {}
        for trajectory, scores in zip(users, scorer(users).astype(np.float64), strict=True):
            scores[trajectory.before] = -np.inf
            slates[trajectory.user] = np.argsort(-scores, kind="stable")[:k].tolist()
        # The same bootstrap draws for every model.
        metrics = evaluate(slates, relevant, k, items, np.random.default_rng(0))
        rows.append({"name": name, **metrics})
    return {"protocol": protocol, "users": rows[0]["users"], "models": rows}
