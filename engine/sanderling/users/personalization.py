"""Personalization on the device between releases: a small residual δ that is added to one user's
vector u.

After a slate from a pool with item vectors v_j, each rewarded item i moves δ along the policy
gradient of the softmax over the pool, with the user's mean reward b as baseline (Williams 1992):

    δ <- δ + η (r_i - b) (v_i - Σ_j π(j) v_j) / mean_j |v_j - Σ_j π(j) v_j|²,      π = softmax of
    the pool's scores

so that the item's score moves by about η (r_i - b). Then δ shrinks until KL(π_u+δ ‖ π_u) over the
pool is at most `TRUST_NATS`: the policy stays close to the released one. Ranking and exploration
use u + δ, so that the logged propensities are those of the adapted policy. δ never leaves the
device; a new bundle halves it, and a bundle of another dimension resets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.users.user_cache import UserCache

Floats = NDArray[np.float64]

RATE = 0.3
"""η, the step size."""

TRUST_NATS = 0.5
"""The largest divergence of the adapted policy from the released one over a pool."""

BASELINE_RATE = 0.05
"""How fast the mean reward b follows the rewards."""

CARRIED = 0.5
"""The part of δ that a new bundle takes over."""

BISECTIONS = 20
"""Halvings of the interval in which the longest part of δ is searched: exact to 2^-20 of δ."""

VERSION = 1
"""The version of the stored form."""


class Residual(NamedTuple):
    """What was learned of one user."""

    space: str
    """The vector space of the bundle in which δ lives."""

    delta: Floats
    """δ, float64 [d]; empty before the first use."""

    baseline: float | None
    """The mean reward b, None before the first reward."""


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    space: str
    delta: bytes
    baseline: float | None


class Residuals:
    """The residuals of all users of an engine; `load` returns the stored bytes of a key, or
    None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._cache = UserCache("residual", load, _parse)

    def get(self, user: str, space: str, dimension: int) -> Residual:
        """Return a user's residual in a space; what was learned in an earlier space counts half."""
        residual = self._cache.get(user)
        if residual.space == space and residual.delta.size == dimension:
            return residual

        fits = residual.delta.size == dimension
        delta = CARRIED * residual.delta if fits else np.zeros(dimension)
        residual = Residual(space, delta, residual.baseline)
        self._cache.put(user, residual)
        return residual

    def learn(
        self, user: str, space: str, pool: Floats, released: Floats, rewards: Mapping[int, float]
    ) -> dict[str, bytes]:
        """Learn from the rewards of one slate; return the bytes to store, by key.

        `pool` holds the item vectors float64 [M, d], `released` their scores [M] without the
        residual, `rewards` the rewards by rank in the pool.
        """
        before = self.get(user, space, pool.shape[1])
        after = updated(before, pool, released, rewards)
        self._cache.put(user, after)
        stored = _Stored(VERSION, after.space, after.delta.tobytes(), after.baseline)
        return {self._cache.key(user): msgspec.msgpack.encode(stored)}

    def forget(self, user: str) -> str:
        """Drop a pseudonym's residual from memory; return the key under which it may be stored."""
        return self._cache.forget(user)


def updated(
    before: Residual, pool: Floats, released: Floats, rewards: Mapping[int, float]
) -> Residual:
    """Return the residual after the rewards of one slate; arguments as in `Residuals.learn`."""
    delta = before.delta.copy()
    baseline = before.baseline

    centred = pool - softmax(released + pool @ delta) @ pool
    spread = float(np.mean(np.sum(centred * centred, axis=1)))
    for rank, reward in rewards.items():
        baseline = reward if baseline is None else baseline
        if spread > 0.0:
            delta += RATE * (reward - baseline) / spread * centred[rank]
        baseline += BASELINE_RATE * (reward - baseline)

    return Residual(before.space, within_trust(delta, pool, released), baseline)


def within_trust(delta: Floats, pool: Floats, released: Floats) -> Floats:
    """Return the longest part of δ whose policy over the pool is within `TRUST_NATS` of the
    released one."""
    change = pool @ delta
    if divergence(released + change, released) <= TRUST_NATS:
        return delta

    low = 0.0
    high = 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if divergence(released + middle * change, released) <= TRUST_NATS:
            low = middle
        else:
            high = middle
    return low * delta


def softmax(scores: Floats) -> Floats:
    """Return the softmax of scores [M]."""
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def divergence(scores: Floats, reference: Floats) -> float:
    """Return KL(softmax(scores) ‖ softmax(reference)) in nats, for scores [M]."""
    p = softmax(scores)
    q = softmax(reference)
    tiny = 1e-300  # keeps the logarithm of a probability that underflowed finite
    return float(np.sum(p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny)))))


def _parse(stored: bytes | None) -> Residual:
    empty = Residual("", np.empty(0), None)
    if stored is None:
        return empty
    try:
        residual = msgspec.msgpack.decode(stored, type=_Stored)
    except msgspec.MsgspecError:
        return empty

    if residual.version != VERSION or len(residual.delta) % 8:
        return empty
    return Residual(residual.space, np.frombuffer(residual.delta), residual.baseline)
