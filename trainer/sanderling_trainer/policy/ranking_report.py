"""How well a policy ranks what users liked later, beside popularity and EASE, in one run and under one protocol.

Refuses to change the policy, and to look at anything later than the split but what it is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.evaluation.baselines import EASE, EASE_MAX_ITEMS, Popularity
from sanderling_trainer.evaluation.metrics import evaluate
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, trajectories
from sanderling_trainer.policy.model.network import PolicyNetwork

Scores = Callable[[Sequence[Trajectory]], NDArray[np.float32]]


def tables(
    network: PolicyNetwork, log: Interactions, split: int, kinds: Sequence[str], k: int
) -> list[dict[str, Any]]:
    """Return the tables of two protocols, as far as anybody can be judged by them.

    Warm users: those known before the split, by what they liked after it. Fold-in: all users of the later time, by what
    they liked in the second half of it, the first half being known to every model.
    """
    found = trajectories(log, split, int(log.time.max()))
    warm = [journey for journey in found if len(journey.before)]
    models = _models(network, log, split, kinds)
    protocols = {"warm users": warm, "fold-in": [_folded(journey) for journey in found]}
    return [
        _table(name, ways, models, k, len(network.bias))
        for name, ways in protocols.items()
        if any(_relevant(journey) for journey in ways)
    ]


def _models(
    network: PolicyNetwork, log: Interactions, split: int, kinds: Sequence[str]
) -> dict[str, Scores]:
    n = len(network.bias)
    codes = np.array([kinds.index(kind) if kind in kinds else 0 for kind in log.kinds], np.int64)
    past = log.select((log.time <= split) & (log.reward > 0))
    order = np.argsort(past.user, kind="stable")
    liked = np.split(past.item[order], np.flatnonzero(np.diff(past.user[order])) + 1)
    likes = np.array([kind != "dislike" for kind in log.kinds])
    baselines: dict[str, Popularity | EASE] = {"popularity": Popularity().fit(liked, n)}
    if n <= EASE_MAX_ITEMS:
        baselines["EASE"] = EASE().fit(liked, n)

    def of(model: Popularity | EASE) -> Scores:
        return lambda found: model.scores(
            [journey.before[likes[journey.before_kinds]] for journey in found]
        )

    return {
        **{name: of(model) for name, model in baselines.items()},
        "Sanderling": lambda found: np.stack(
            [_scores(network, journey, codes) for journey in found]
        ),
    }


@torch.no_grad()
def _scores(
    network: PolicyNetwork, journey: Trajectory, codes: NDArray[np.int64]
) -> NDArray[np.float32]:
    device, items = network.bias.device, network.items()
    sequence = torch.from_numpy(journey.before)[None].to(device)
    kinds = torch.from_numpy(codes[journey.before_kinds])[None].to(device)
    state = network.states(items, sequence, kinds)[0, -1]
    context = torch.tensor(journey.contexts[0] if len(journey.contexts) else -1, device=device)
    return network.logits(network.users(state, context), items).cpu().numpy()


def _folded(journey: Trajectory) -> Trajectory:
    half = len(journey.later) // 2
    return Trajectory(
        user=journey.user,
        before=np.concatenate([journey.before, journey.later[:half]]),
        before_kinds=np.concatenate([journey.before_kinds, journey.kinds[:half]]),
        later=journey.later[half:],
        kinds=journey.kinds[half:],
        liked=journey.liked[half:],
        contexts=journey.contexts[half:],
    )


def _relevant(journey: Trajectory) -> set[int]:
    return set(journey.later[journey.liked].tolist()) - set(journey.before.tolist())


def _table(
    protocol: str, found: Sequence[Trajectory], models: dict[str, Scores], k: int, items: int
) -> dict[str, Any]:
    relevant = {journey.user: _relevant(journey) for journey in found}
    rows = []
    for name, score in models.items():
        slates = {}
        for journey, row in zip(found, score(found).astype(np.float64), strict=True):
            row[journey.before] = -np.inf
            slates[journey.user] = np.argsort(-row, kind="stable")[:k].tolist()
        rows.append(
            {"name": name, **evaluate(slates, relevant, k, items, np.random.default_rng(0))}
        )
    return {"protocol": protocol, "users": rows[0]["users"], "models": rows}
