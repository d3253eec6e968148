"""A simulator fitted to a real log: latent factors and popularity, with drift, cold items and late rewards.

P(click | looked at) = σ(a + b_i(t) + s u(t)·v_i). Factors and popularity come from a truncated SVD of the log's binary
matrix; the offset a makes the mean attraction what was asked for. Drift turns each user's taste towards a stranger's,
and each item's popularity towards another's, by an angle a unit of time, so that the truth stays in closed form.
Refuses to know policies, and to claim that real users are like this.
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
class Simulated:
    """taste float64 [2, u, f] (now, and where it drifts to), features float64 [n, f], popularity float64 [2, n].

    born int64 [n]: the time at which an item appears. drift: radians a unit of time. delay: mean of the geometric
    number of units of time that a reward takes to arrive, 0 for at once.
    """

    texts: Sequence[str]
    taste: Floats
    features: Floats
    popularity: Floats
    offset: float
    born: Ints
    clicks: ClickModel
    steps: int = 1
    drift: float = 0.0
    delay: float = 0.0

    @property
    def users(self) -> int:
        """How many users there are."""
        return self.taste.shape[1]

    def attraction(self, users: Ints, time: int) -> Floats:
        """σ(a + b_i(t) + u(t)·v_i), float64 [b, n]."""
        now, then = np.cos(self.drift * time), np.sin(self.drift * time)
        taste = now * self.taste[0, users] + then * self.taste[1, users]
        popularity = now * self.popularity[0] + then * self.popularity[1]
        return expit(self.offset + popularity + taste @ self.features.T)

    def eligible(self, users: Ints, time: int) -> Bools:
        """The items born by then, bool [b, n]."""
        return np.broadcast_to(self.born <= time, (len(users), len(self.born)))

    def lateness(self, shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
        """Draw how many units of time each reward takes to arrive, int64 of a shape: geometric, mean `delay`."""
        return rng.geometric(1.0 / (1.0 + self.delay), shape) - 1


def fit_simulator(
    user: Ints,
    item: Ints,
    texts: Sequence[str],
    clicks: ClickModel,
    rng: np.random.Generator,
    *,
    factors: int = 16,
    rate: float = 0.05,
    spread: float = 1.5,
    steps: int = 1,
    drift: float = 0.0,
    delay: float = 0.0,
    cold: float = 0.0,
    horizon: int = 1,
) -> Simulated:
    """Fit a simulator to events (user, item), int64 [m] each.

    rate: the mean attraction over users and items, in (0, 1). spread: standard deviation of u·v in logits. cold: share
    of items born after time 0, at times 1 … horizon. Raises ValueError where the log has too few users or items.
    """
    n, users = len(texts), int(user.max(initial=-1)) + 1
    if min(n, users) <= factors:
        raise ValueError(f"expected more than {factors} users and items, found {users} and {n}")
    matrix = coo_matrix((np.ones(len(user)), (user, item)), shape=(users, n)).tocsr()
    matrix.data[:] = 1.0
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    weight = 1.0 / np.sqrt(np.maximum(counts, 1.0))
    left, values, right = svds(
        matrix @ diags(weight), k=factors, random_state=np.random.RandomState(rng.integers(2**31))
    )
    taste, features = left * np.sqrt(values), right.T * np.sqrt(values)
    features -= features.mean(axis=0)
    features *= spread / (taste @ features.T).std()
    popularity = np.log1p(counts)
    popularity = (popularity - popularity.mean()) / max(float(popularity.std()), 1e-12)
    both = np.stack([popularity, rng.permutation(popularity)])
    logits = popularity + taste @ features.T
    born = np.where(rng.random(n) < cold, rng.integers(1, horizon + 1, n), 0)
    return Simulated(
        texts=texts,
        taste=np.stack([taste, taste[rng.permutation(users)]]),
        features=features,
        popularity=both,
        offset=float(brentq(lambda a: expit(a + logits).mean() - rate, -60.0, 60.0)),
        born=born,
        clicks=clicks,
        steps=steps,
        drift=drift,
        delay=delay,
    )
