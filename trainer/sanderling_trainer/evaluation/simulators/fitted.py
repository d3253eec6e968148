"""A simulator fitted to a real log: latent factors and popularity, with drift and delayed rewards.

P(click | examined) = σ(a + b_i(t) + u(t)·v_i). Factors and popularity come from a truncated SVD of
the log's binary matrix; the offset a gives the mean attraction that the settings ask for. Drift
rotates each user's taste towards another user's, and each item's popularity towards another
item's, by an angle a unit of time, so that the truth stays in closed form. It is a test bed and
no model of how real users behave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import svds
from scipy.special import expit

from sanderling_trainer.evaluation.simulators.click_models import Bools, ClickModel, Floats, Ints


@dataclass(frozen=True)
class SimulatorSettings:
    """What a fitted simulator adds to the log, and how much of the log it keeps."""

    factors: int = 16
    """Rank of the SVD."""

    mean_attraction: float = 0.05
    """Over all users and items, in (0, 1)."""

    logit_deviation: float = 1.5
    """Standard deviation of u·v, in logits: how far tastes differ."""

    steps: int = 1
    """Slates in a session."""

    drift: float = 0.0
    """Radians a unit of time."""

    mean_delay: float = 0.0
    """Mean units of time until a reward arrives."""

    new_item_share: float = 0.0
    """The share of items that appear after time 0, at times 1 … `horizon`."""

    horizon: int = 1


@dataclass(frozen=True)
class FittedEnvironment:
    """u users and n items with f factors."""

    texts: Sequence[str]
    user_factors: Floats
    """Float64 [2, u, f]: at time 0, and what they drift to."""

    item_factors: Floats
    """Float64 [n, f]."""

    popularity: Floats
    """Logits, float64 [2, n]: at time 0, and what they drift to."""

    offset: float
    available_from: Ints
    """The time at which each item appears, int64 [n]."""

    click_model: ClickModel
    steps: int = 1
    drift: float = 0.0
    mean_delay: float = 0.0

    @property
    def users(self) -> int:
        """The number of users."""
        return self.user_factors.shape[1]

    def attraction(self, users: Ints, time: int) -> Floats:
        """Return σ(a + b_i(t) + u(t)·v_i), float64 [b, n]."""
        start = np.cos(self.drift * time)
        end = np.sin(self.drift * time)
        user_factors = start * self.user_factors[0, users] + end * self.user_factors[1, users]
        popularity = start * self.popularity[0] + end * self.popularity[1]
        return expit(self.offset + popularity + user_factors @ self.item_factors.T)

    def eligible(self, users: Ints, time: int) -> Bools:
        """Return the items that have appeared by then, bool [b, n]."""
        available = self.available_from <= time
        return np.broadcast_to(available, (len(users), len(available)))

    def reward_delays(self, shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
        """Draw after how many units of time each reward arrives: geometric, mean `mean_delay`."""
        return rng.geometric(1.0 / (1.0 + self.mean_delay), shape) - 1


def fit_simulator(
    user: Ints,
    item: Ints,
    texts: Sequence[str],
    click_model: ClickModel,
    rng: np.random.Generator,
    settings: SimulatorSettings | None = None,
) -> FittedEnvironment:
    """Fit a simulator to events (user, item), int64 [m] each; `texts` has one entry an item.

    Raises:
        ValueError: the log has no more users, or items, than factors.
    """
    settings = settings or SimulatorSettings()
    n = len(texts)
    users = int(user.max(initial=-1)) + 1
    if min(n, users) <= settings.factors:
        raise ValueError(
            f"expected more than {settings.factors} users and items, found {users} and {n}"
        )
    matrix = coo_matrix((np.ones(len(user)), (user, item)), shape=(users, n)).tocsr()
    matrix.data[:] = 1.0
    counts = np.asarray(matrix.sum(axis=0)).ravel()

    # Columns are scaled down by popularity, which is a term of its own.
    scale = 1.0 / np.sqrt(np.maximum(counts, 1.0))
    seed = np.random.RandomState(rng.integers(2**31))
    left, singular, right = svds(matrix @ diags(scale), k=settings.factors, random_state=seed)
    user_factors = left * np.sqrt(singular)
    item_factors = right.T * np.sqrt(singular)
    item_factors -= item_factors.mean(axis=0)
    item_factors *= settings.logit_deviation / (user_factors @ item_factors.T).std()

    log_counts = np.log1p(counts)
    popularity = (log_counts - log_counts.mean()) / max(float(log_counts.std()), 1e-12)
    final_popularity = rng.permutation(popularity)
    logits = popularity + user_factors @ item_factors.T

    def excess(offset: float) -> float:
        return float(expit(offset + logits).mean() - settings.mean_attraction)

    is_new = rng.random(n) < settings.new_item_share
    available_from = np.where(is_new, rng.integers(1, settings.horizon + 1, n), 0)
    return FittedEnvironment(
        texts=texts,
        user_factors=np.stack([user_factors, user_factors[rng.permutation(users)]]),
        item_factors=item_factors,
        popularity=np.stack([popularity, final_popularity]),
        offset=float(brentq(excess, -60.0, 60.0)),
        available_from=available_from,
        click_model=click_model,
        steps=settings.steps,
        drift=settings.drift,
        mean_delay=settings.mean_delay,
    )
