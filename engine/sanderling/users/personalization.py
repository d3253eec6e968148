"""Learning on the device between bundles: a small residual δ that is added to one user's vector u.

After a slate from a pool with item vectors v_j, each judged item i moves δ along the policy gradient of the softmax
over the pool, with the user's mean reward b as baseline (Williams 1992):

    δ <- δ + η (r_i - b) (v_i - Σ_j π(j) v_j) / mean_j |v_j - Σ_j π(j) v_j|²,      π = softmax of the pool's scores

so that the item's score moves by about η (r_i - b). Then δ shrinks until KL(π_u+δ ‖ π_u) over the pool is at most
`TRUST`: the shipped policy is never far. Ranking and exploration use u + δ, so that propensities are those of the
adapted policy as they stand. δ stays on the device; a new bundle halves it, and one of another dimension ends it.

Refuses to know where the bytes are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.users.user_cache import UserCache

Floats = NDArray[np.float64]

RATE, TRUST, MEMORY, CARRIED = (
    0.3,
    0.5,
    0.05,
    0.5,
)  # η, nats, how fast b moves, what a new bundle leaves of δ


class Residual(NamedTuple):
    """δ float64 [d] in the space of one bundle, empty for none, and the mean reward b, None before the first."""

    space: str
    shift: Floats
    mean: float | None


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    space: str
    shift: bytes
    mean: float | None


class Residuals:
    """The residuals of all users of an engine; `load` returns the stored bytes of a key, or None."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._kept = UserCache("residual", load, _parse)

    def get(self, user: str, space: str, dimension: int) -> Residual:
        """Return a user's residual in a space; what was learned in an earlier one counts half."""
        found = self._kept.get(user)
        if found.space != space or found.shift.size != dimension:
            shift = CARRIED * found.shift if found.shift.size == dimension else np.zeros(dimension)
            found = Residual(space, shift, found.mean)
            self._kept.keep(user, found)
        return found

    def learn(
        self, user: str, space: str, pool: Floats, shipped: Floats, rewards: Mapping[int, float]
    ) -> dict[str, bytes]:
        """Learn from the rewards, by place in a pool of vectors float64 [M, d] with the shipped policy's scores [M];
        return the key and bytes to store."""
        before = self.get(user, space, pool.shape[1])
        after = learned(before, pool, shipped, rewards)
        self._kept.keep(user, after)
        stored = _Stored(1, after.space, after.shift.tobytes(), after.mean)
        return {self._kept.key(user): msgspec.msgpack.encode(stored)}

    def forget(self, user: str) -> str:
        """Drop what is known of a pseudonym from memory; return the key under which it may be stored."""
        return self._kept.forget(user)


def learned(
    before: Residual, pool: Floats, shipped: Floats, rewards: Mapping[int, float]
) -> Residual:
    """Return the residual after the rewards of one slate."""
    shift, mean = before.shift.copy(), before.mean
    centred = pool - softmax(shipped + pool @ shift) @ pool
    size = float(np.mean(np.sum(centred * centred, axis=1)))
    for place, reward in rewards.items():
        mean = reward if mean is None else mean
        if size > 0.0:
            shift += RATE * (reward - mean) / size * centred[place]
        mean += MEMORY * (reward - mean)
    return Residual(before.space, trusted(shift, pool, shipped), mean)


def trusted(shift: Floats, pool: Floats, shipped: Floats) -> Floats:
    """Return the longest part of δ with which the pool's policy stays within `TRUST` of the shipped scores' one."""
    moved = pool @ shift
    if divergence(shipped + moved, shipped) <= TRUST:
        return shift
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2.0
        low, high = (
            (middle, high)
            if divergence(shipped + middle * moved, shipped) <= TRUST
            else (low, middle)
        )
    return low * shift


def softmax(scores: Floats) -> Floats:
    """Return the softmax of scores [M]."""
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def divergence(some: Floats, others: Floats) -> float:
    """Return KL(softmax(some) ‖ softmax(others)) in nats, for scores [M]."""
    p, q = softmax(some), softmax(others)
    return float(np.sum(p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300)))))


def _parse(stored: bytes | None) -> Residual:
    nothing = Residual("", np.empty(0), None)
    if stored is None:
        return nothing
    try:
        found = msgspec.msgpack.decode(stored, type=_Stored)
    except msgspec.MsgspecError:
        return nothing
    sound = found.version == 1 and len(found.shift) % 8 == 0
    return Residual(found.space, np.frombuffer(found.shift), found.mean) if sound else nothing
