"""An environment from a complete rating matrix: every user rated every item.

Goldberg et al. 2001, "Eigentaste", published such ratings of jokes (Jester).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sanderling_trainer.evaluation.simulators.click_models import (
    SINGLE_SLOT,
    Bools,
    ClickModel,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class RatingMatrix:
    """An item that is examined is clicked for certain where its rating is above 0."""

    ratings: Floats
    """Float [u, n], all finite."""

    texts: Sequence[str]
    steps: int = 10
    click_model: ClickModel = SINGLE_SLOT

    def __post_init__(self) -> None:
        if self.ratings.ndim != 2 or not np.isfinite(self.ratings).all():
            raise ValueError(
                "expected finite ratings [users, items] without gaps, found shape"
                f" {self.ratings.shape}, {int((~np.isfinite(self.ratings)).sum())} not finite"
            )
        if len(self.texts) != self.ratings.shape[1]:
            raise ValueError(
                f"expected {self.ratings.shape[1]} texts, one an item, found {len(self.texts)}"
            )

    @property
    def users(self) -> int:
        """The number of users."""
        return len(self.ratings)

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return 1 where the rating is above 0, else 0; float64 [b, n]."""
        return (self.ratings[users] > 0).astype(np.float64)

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return True for every item, bool [b, n]."""
        return np.ones((len(users), self.ratings.shape[1]), np.bool_)
