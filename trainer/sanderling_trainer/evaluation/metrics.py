"""Ranking metrics of slates against what users liked later. Full ranking: slates come from the whole catalogue.

Refuses to know where slates come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import SanderlingError
from sanderling_trainer.evaluation.intervals import mean


class NothingToJudgeError(SanderlingError):
    """No user has both a slate and something relevant."""


def recall(slate: Sequence[Any], relevant: set[Any]) -> float:
    """Return the share of the relevant that the slate holds."""
    return len(relevant.intersection(slate)) / len(relevant)


def ndcg(slate: Sequence[Any], relevant: set[Any], k: int) -> float:
    """Return the normalised discounted gain (Järvelin and Kekäläinen 2002) of a slate of at most k items.

    The ideal slate holds min(k, relevant), however short this one is.
    """
    gain = sum(1.0 / np.log2(place + 2) for place, item in enumerate(slate) if item in relevant)
    return float(gain / sum(1.0 / np.log2(place + 2) for place in range(min(k, len(relevant)))))


def reciprocal_rank(slate: Sequence[Any], relevant: set[Any]) -> float:
    """Return 1 / the place (from 1) of the first relevant item, 0 when there is none."""
    return next((1.0 / place for place, item in enumerate(slate, 1) if item in relevant), 0.0)


def novelty(slate: Sequence[int], chance: NDArray[np.float64]) -> float:
    """Return the mean surprise -log2 p in bits over a slate's rows (Zhou et al. 2010), `chance` being p > 0 [n]."""
    return float(-np.log2(chance[np.asarray(slate, np.int64)]).mean()) if len(slate) else 0.0


def per_user(
    slates: Sequence[Sequence[Any]], relevant: Sequence[set[Any]], k: int, deep: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return each metric at k float64 [u], for users with a slate of any length and something relevant.

    With `deep` also the recall of the first `deep` items.
    """
    pairs = [(list(slate[:k]), wanted) for slate, wanted in zip(slates, relevant, strict=True)]
    found = {
        f"ndcg@{k}": [ndcg(slate, wanted, k) for slate, wanted in pairs],
        f"recall@{k}": [recall(slate, wanted) for slate, wanted in pairs],
        f"hit_rate@{k}": [float(bool(wanted.intersection(slate))) for slate, wanted in pairs],
        f"mrr@{k}": [reciprocal_rank(slate, wanted) for slate, wanted in pairs],
    }
    if deep:
        found[f"recall@{deep}"] = [
            recall(slate[:deep], want) for slate, want in zip(slates, relevant, strict=True)
        ]
    return {name: np.array(values) for name, values in found.items()}


def evaluate(
    slates: Mapping[Any, Sequence[Any]],
    relevant: Mapping[Any, set[Any]],
    k: int,
    items: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the metrics at k with intervals over the users who have a slate and something relevant.

    `items` is the size of the catalogue, for the coverage. Users without a slate or without anything relevant are
    counted, not scored. Raises `NothingToJudgeError` when nobody is left.
    """
    users = [user for user in slates if relevant.get(user) and len(slates[user])]
    if not users:
        raise NothingToJudgeError(
            "expected at least one user with a slate and something liked later, found none"
        )
    cut = {user: list(slates[user])[:k] for user in users}
    scored = per_user(list(cut.values()), [relevant[user] for user in users], k)
    shown = {item for slate in cut.values() for item in slate}
    return {
        "users": len(users),
        "users_without_slate": sum(
            1 for user in relevant if relevant[user] and not len(slates.get(user, ()))
        ),
        "users_without_relevant": sum(1 for user in slates if not relevant.get(user)),
        **{name: mean(values, rng).plain() for name, values in scored.items()},
        f"coverage@{k}": len(shown) / items,
    }
