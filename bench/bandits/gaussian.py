"""The Gaussian collaborative filter: a user's ratings are a draw of a normal over all items.

The posterior is updated with each rating.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """mean float64 [n] and covariance float64 [n, n] of the training users' ratings.

    by_chance: score by P(rating > 0), which is what earns, rather than by the mean rating.
    """

    mean: np.ndarray
    covariance: np.ndarray
    by_chance: bool = False

    def start(self, users: int) -> Posterior:
        """Return the posterior of users who rated nothing yet."""
        return Posterior(
            self.by_chance,
            np.repeat(self.mean[None], users, axis=0).astype(np.float32),
            np.repeat(self.covariance[None], users, axis=0).astype(np.float32),
        )


@dataclass
class Posterior:
    """means float32 [b, n] and covariances float32 [b, n, n] given each user's ratings so far."""

    by_chance: bool
    means: np.ndarray
    covariances: np.ndarray

    def standardized(self) -> np.ndarray:
        """Return mean over standard deviation, float32 [b, n]: Φ of it is P(rating > 0)."""
        return self.means / np.sqrt(np.maximum(np.einsum("bii->bi", self.covariances), 0.5))

    def scores(self) -> np.ndarray:
        """Return the scores of a greedy policy, [b, n]."""
        return self.standardized() if self.by_chance else self.means

    def observe(self, items: np.ndarray, ratings: np.ndarray) -> None:
        """Condition on one rating of each user, items int64 [b]: a rank-one update."""
        users = np.arange(len(items))
        column = self.covariances[users, items]
        gain = column / np.maximum(column[users, items], 1e-3)[:, None]
        surprise = (ratings - self.means[users, items])[:, None].astype(np.float32)
        self.means = self.means + gain * surprise
        self.covariances = self.covariances - gain[:, :, None] * column[:, None, :]


def fit(ratings: np.ndarray, shrink: float = 0.0, by_chance: bool = False) -> Gaussian:
    """Fit to ratings [u, n]; `shrink` in [0, 1] reduces the off-diagonal covariances."""
    covariance = np.cov(ratings.T)
    covariance = (1.0 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    return Gaussian(ratings.mean(axis=0), covariance, by_chance)
