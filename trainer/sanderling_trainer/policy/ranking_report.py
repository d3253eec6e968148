"""How well a policy ranks what users liked after a cut of the log, beside tuned baselines under
the same protocols.

Nothing later than the cut is read except what the ranking is measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import kind_codes, policy_kinds
from sanderling_trainer.evaluation.inner_windows import (
    Cut,
    Rows,
    best_rows,
    histories_by_user,
    relevant_rows,
)
from sanderling_trainer.evaluation.metrics import evaluate
from sanderling_trainer.evaluation.peers import FittedPeers
from sanderling_trainer.evaluation.trajectory_replay import Trajectory
from sanderling_trainer.policy.choose_settings import Choice
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.rollout import scores_at_cut

K = 10

Scorer = Callable[[Sequence[Trajectory]], NDArray[np.float32]]
"""Returns scores float32 [u, n] for u trajectories."""


@dataclass(frozen=True)
class Protocol:
    """Which users are measured, and whether items that they had may be shown again."""

    name: str
    users: list[Trajectory]
    repeats: bool

    def relevant(self) -> dict[int, set[int]]:
        """Return the relevant rows of each user, by the user's code."""
        return {user.user: relevant_rows(user, self.repeats) for user in self.users}


def tables(network: PolicyNetwork, cut: Cut, choice: Choice) -> list[dict[str, Any]]:
    """Return the tables of the protocols, without those that no user can be measured by.

    Warm users: users known before the cut, by what they liked after it; where users repeat, once
    with the items that they had and once by new ones alone. New users: by what they liked, when
    nothing is known of them. Fold-in: all users of the later time, by what they liked in the
    second half of it, where every model sees the first.
    """
    warm = [user for user in cut.users if len(user.before)]
    new = [user for user in cut.users if not len(user.before)]
    protocols = [
        Protocol("warm users", warm, choice.repeats),
        Protocol("fold-in", [_fold_in(user) for user in cut.users], choice.repeats),
        Protocol("new users", new, choice.repeats),
    ]
    if choice.repeats:
        protocols.insert(1, Protocol("warm users, new items", warm, False))

    scorers = _scorers(network, cut, choice)
    return [
        _table(protocol, scorers, len(network.bias))
        for protocol in protocols
        if any(protocol.relevant().values())
    ]


def _scorers(network: PolicyNetwork, cut: Cut, choice: Choice) -> dict[str, Scorer]:
    """Return the models by name; the baselines are fitted to the likes before the cut."""
    likes = cut.past.select(cut.past.reward > 0)
    items = len(network.bias)
    fitted = FittedPeers(histories_by_user(cut.past), likes.item, likes.time, items)
    settings = {"popularity": {}, **{peer.name: peer.settings for peer in choice.peers}}

    # Baselines know no kinds of event: they see what was not disliked.
    is_like = np.array([kind != "dislike" for kind in cut.past.kinds], np.bool_)

    def liked_before(users: Sequence[Trajectory]) -> list[Rows]:
        return [user.before[is_like[user.before_kinds]] for user in users]

    def baseline_scorer(name: str) -> Scorer:
        return lambda users: fitted.scores(name, settings[name], liked_before(users))

    codes = kind_codes(cut.past.kinds, policy_kinds(cut.past.kinds))
    scorers = {name: baseline_scorer(name) for name in settings}
    return {**scorers, "Sanderling": lambda users: scores_at_cut(network, users, codes)}


def _fold_in(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory whose cut is in the middle of its later events."""
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


def _table(protocol: Protocol, scorers: dict[str, Scorer], items: int) -> dict[str, Any]:
    relevant = protocol.relevant()
    users = [user for user in protocol.users if relevant[user.user]]
    rows = []
    for name, scorer in scorers.items():
        slates = {}
        for user, scores in zip(users, scorer(users), strict=True):
            if not protocol.repeats:
                scores[user.before] = -np.inf
            slates[user.user] = best_rows(scores, K).tolist()
        # The same bootstrap draws for every model.
        metrics = evaluate(slates, relevant, K, items, np.random.default_rng(0))
        rows.append({"name": name, **metrics})
    return {"protocol": protocol.name, "users": rows[0]["users"], "models": rows}
