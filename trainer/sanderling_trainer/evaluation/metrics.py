"""Ranking metrics of slates, drawn from the whole catalog, against what users liked later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import SanderlingError
from sanderling_quantize import similarity
from sanderling_trainer.evaluation.intervals import mean


class NothingToEvaluateError(SanderlingError):
    """No user has both a slate and a relevant item."""


def recall(slate: Sequence[Any], relevant: set[Any]) -> float:
    """Return the share of the relevant items that the slate holds."""
    return len(relevant.intersection(slate)) / len(relevant)


def ndcg(slate: Sequence[Any], relevant: set[Any], k: int) -> float:
    """Return the normalized discounted cumulative gain of a slate of at most k items.

    The ideal slate holds min(k, len(relevant)) items, however short this one is.
    Source: Järvelin and Kekäläinen 2002.
    """
    return float(similarity.ndcg([slate[:k]], [relevant], k)[0])


def reciprocal_rank(slate: Sequence[Any], relevant: set[Any]) -> float:
    """Return 1 / rank (from 1) of the first relevant item, 0 when there is none."""
    return next((1.0 / rank for rank, item in enumerate(slate, 1) if item in relevant), 0.0)


def novelty(slate: Sequence[int], popularity: NDArray[np.float64]) -> float:
    """Return the mean self-information -log2 p, in bits, of a slate's rows; 0 if it is empty.

    popularity float64 [n] holds each item's share p > 0 of the interactions.
    Source: Zhou et al. 2010.
    """
    if not len(slate):
        return 0.0
    return float(-np.log2(popularity[np.asarray(slate, np.int64)]).mean())


def per_user(
    slates: Sequence[Sequence[Any]],
    relevant: Sequence[set[Any]],
    k: int,
    recall_depth: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return each metric at k, float64 [u], for users with a slate and a relevant item.

    With `recall_depth` also the recall among the first so many items.
    """
    pairs = [(list(slate[:k]), wanted) for slate, wanted in zip(slates, relevant, strict=True)]
    values = {
        f"ndcg@{k}": [ndcg(slate, wanted, k) for slate, wanted in pairs],
        f"recall@{k}": [recall(slate, wanted) for slate, wanted in pairs],
        f"hit_rate@{k}": [float(bool(wanted.intersection(slate))) for slate, wanted in pairs],
        f"mrr@{k}": [reciprocal_rank(slate, wanted) for slate, wanted in pairs],
    }
    if recall_depth:
        values[f"recall@{recall_depth}"] = [
            recall(slate[:recall_depth], wanted)
            for slate, wanted in zip(slates, relevant, strict=True)
        ]
    return {name: np.array(column) for name, column in values.items()}


def evaluate(
    slates: Mapping[Any, Sequence[Any]],
    relevant: Mapping[Any, set[Any]],
    k: int,
    items: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the metrics at k with intervals over users, and counts, ready for JSON.

    `slates` and `relevant` are by user; `items` is the size of the catalog, for the coverage.
    Users without a slate or without a relevant item are counted but not scored.

    Raises:
        NothingToEvaluateError: no user has both.
    """
    users = [user for user in slates if relevant.get(user) and len(slates[user])]
    if not users:
        raise NothingToEvaluateError(
            "expected at least one user with a slate and something liked later, found none: the"
            " slates and the interactions may be of different users"
        )
    top_k = {user: list(slates[user])[:k] for user in users}
    scores = per_user(list(top_k.values()), [relevant[user] for user in users], k)
    shown = {item for slate in top_k.values() for item in slate}
    without_slate = [user for user in relevant if relevant[user] and not len(slates.get(user, ()))]
    return {
        "users": len(users),
        "users_without_slate": len(without_slate),
        "users_without_relevant": sum(1 for user in slates if not relevant.get(user)),
        **{name: mean(column, rng).as_dict() for name, column in scores.items()},
        f"coverage@{k}": len(shown) / items,
    }
