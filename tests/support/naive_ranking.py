"""Loop-based references for the baselines and for full ranking, each written as its definition."""

from __future__ import annotations

import math
from typing import Any


def naive_slate(scores: list[float], k: int) -> list[int]:
    """Return the k best columns by sorting (-score, column), and -1 where nothing may be shown."""
    ranked = sorted((-score, column) for column, score in enumerate(scores) if score != -math.inf)
    return [column for _, column in ranked[:k]] + [-1] * (min(k, len(scores)) - len(ranked[:k]))


def naive_item_knn(
    histories: list[set[int]], items: int, neighbours: int, shrink: float
) -> list[list[float]]:
    """Return similar[i][j], what having j adds to the score of i, from counts of users."""
    had = [{user for user, rows in enumerate(histories) if item in rows} for item in range(items)]
    similar = [[0.0] * items for _ in range(items)]
    for i in range(items):
        found = []
        for j in range(items):
            if i != j and had[i] & had[j]:
                norm = math.sqrt(len(had[i])) * math.sqrt(len(had[j]))
                found.append((len(had[i] & had[j]) / (norm + shrink), j))
        for value, j in sorted(found, reverse=True)[:neighbours]:
            similar[i][j] = value
    return similar


def naive_als_loss(
    histories: list[set[int]], users: Any, items: Any, alpha: float, regularization: float
) -> float:
    """Return the users' part of the iALS loss by pairs (Rendle et al. 2022, eq. 3 to 5, ν = 1)."""
    loss = 0.0
    for user, had in enumerate(histories):
        for item in range(len(items)):
            predicted = sum(
                float(a) * float(b) for a, b in zip(users[user], items[item], strict=True)
            )
            loss += alpha * predicted**2 + ((1.0 - predicted) ** 2 if item in had else 0.0)
        size = sum(float(a) ** 2 for a in users[user])
        loss += regularization * (len(had) + alpha * len(items)) * size
    return loss


def naive_tfidf(texts: list[str]) -> list[dict[str, float]]:
    """Return each text's unit vector of (1 + log tf) (1 + log((1 + n) / (1 + df)))."""
    words = [text.lower().split() for text in texts]
    vectors = []
    for own in words:
        vector = {}
        for word in set(own):
            documents = sum(word in other for other in words)
            vector[word] = (1 + math.log(own.count(word))) * (
                1 + math.log((1 + len(texts)) / (1 + documents))
            )
        norm = math.sqrt(sum(value**2 for value in vector.values()))
        vectors.append({word: value / norm for word, value in vector.items()})
    return vectors


def naive_cosine(first: dict[str, float], second: dict[str, float]) -> float:
    """Return the cosine of two sparse vectors, 0 where one is empty."""
    dot = sum(value * second.get(word, 0.0) for word, value in first.items())
    sizes = [math.sqrt(sum(value**2 for value in vector.values())) for vector in (first, second)]
    return dot / (sizes[0] * sizes[1]) if all(sizes) else 0.0
