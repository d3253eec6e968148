"""Logged decisions as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

MOST_ALIKE = 64.0


Ints = NDArray[np.int64]


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """m logged slates of K slots: decision i was taken for `history[i]` after its first `at[i]` events.

    items int64 [m, K] rows (-1 for no slot), conditional float64 [m, K] propensities as logged, logged the marginal
    ones, or conditional ones where the scheme gives no others, reward float32 [m, K], judged bool [m, K] the slots
    whose outcome is known, context int64 [m] (-1 for none), ranks int64 [m, K] places in the logging policy's greedy
    order, group int64 [m] what to bootstrap over. Of the policy that decided: its release, pool and number of eligible
    items int64 [m], 0 where unknown, epsilon float64 [m], guarded int64 [m], the slots in front that did not
    explore, and capped bool [m], whether its pool had caps on attributes. flip_probability float64 [m] in [0, 1/2) is the
    chance with which each of its rewards was told as the opposite (`sanderling.users.randomized_response`): where it is above 0, rewards
    are right in expectation, and beyond [-1, 1].
    survived float64 [m] in (0, 1] is the chance with which the decision came through the shedding of a full device.
    slots int64 [m] are those that each slate has, all K unless given.
    """

    history: Ints
    at: Ints
    items: Ints
    logged: NDArray[np.float64]
    conditional: NDArray[np.float64]
    reward: NDArray[np.float32]
    judged: NDArray[np.bool_]
    context: Ints
    ranks: Ints
    group: Ints
    release: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    pool: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    eligible: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    epsilon: Floats = field(default_factory=lambda: np.empty(0))
    guarded: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    capped: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    flip_probability: Floats = field(default_factory=lambda: np.empty(0))
    survived: Floats = field(default_factory=lambda: np.empty(0))
    slots: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        fills = dict.fromkeys(
            ("release", "pool", "eligible", "epsilon", "guarded", "capped", "flip_probability"), 0
        )
        for name, fill in (fills | {"survived": 1, "slots": self.items.shape[1]}).items():
            given = getattr(self, name)
            if len(given) == 0:
                object.__setattr__(self, name, np.full(len(self), fill, given.dtype))

    def __len__(self) -> int:
        return len(self.history)

    def of(self, rows: NDArray) -> Decisions:
        """Return some of them, by their places or a mask."""
        return Decisions(**{name: column[rows] for name, column in vars(self).items()})

    def cut(self, most: int) -> Decisions:
        """Return them as if every slate had ended after so many slots."""
        first = {name: column[:, :most] for name, column in vars(self).items() if column.ndim == 2}
        return replace(self, slots=np.minimum(self.slots, most), **first)

    @property
    def noisy(self) -> NDArray[np.bool_]:
        """Which rewards were told with randomised response, bool [m]."""
        return self.flip_probability > 0.0

    def weights(self) -> Floats:
        """Return how much each decision counts when something is learned of all, float64 [m] of mean 1.

        One that survived shedding with chance p stands for 1/p like it, for 64 at most: a device may be wrong, or mean
        ill, and must not outweigh all others. One with rewards flipped with chance q,
        whose corrected variance is 1 / (1 - 2q)² of an exact one's, counts by the inverse.
        """
        each = (1.0 - 2.0 * self.flip_probability) ** 2 * np.minimum(
            1.0 / self.survived, MOST_ALIKE
        )
        return each / each.mean() if len(each) else each

    def epsilons(self) -> Floats:
        """Return the epsilon of each slot, float64 [m, K]."""
        return np.where(
            np.arange(self.items.shape[1]) < self.guarded[:, None], 0.0, self.epsilon[:, None]
        )
