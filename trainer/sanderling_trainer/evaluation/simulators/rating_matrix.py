"""A world from a complete matrix of ratings: every user rated every item, so every answer is known.

Goldberg et al. 2001, "Eigentaste", published such ratings of jokes. Refuses to know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    ONE,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class RatedMatrix:
    """ratings float [u, n], all finite, liked above 0; the answer to an item is certain: attraction is 0 or 1."""

    ratings: Floats
    texts: Sequence[str]
    steps: int = 10
    clicks: ClickModel = ONE

    def __post_init__(self) -> None:
        if self.ratings.ndim != 2 or not np.isfinite(self.ratings).all():
            raise ValueError(
                f"expected finite ratings [users, items], found shape {self.ratings.shape}, or gaps"
            )
        if len(self.texts) != self.ratings.shape[1]:
            raise ValueError(
                f"expected {self.ratings.shape[1]} texts, one an item, found {len(self.texts)}"
            )

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.ratings)

    def attraction(self, users: Ints, time: int) -> Floats:
        """1 where the rating is above 0, float64 [b, n]."""
        return (self.ratings[users] > 0).astype(np.float64)

    def eligible(self, users: Ints, time: int) -> Bools:
        """Every item, bool [b, n]."""
        return np.ones((len(users), self.ratings.shape[1]), np.bool_)
