"""Logged decisions as arrays: contexts, actions, propensities and rewards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.influence import influence_factors

MAX_SHEDDING_WEIGHT = 64.0
SCHEMES = ("sequential", "mixture", "softmax")

MIN_INSTALLS = 10
"""With fewer, pseudonyms are resampled instead of installs."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Decisions:
    """m logged slates of K slots. Decision i followed the first `position[i]`
    events of `history[i]`.
    """

    history: Ints
    """[m], index into the list of histories."""

    position: Ints
    """[m], how many events of the history precede the decision."""

    items: Ints
    """[m, K], catalog rows, -1 for an empty slot."""

    marginal: Floats
    """[m, K], marginal propensities, or conditional ones where the scheme gives no others."""

    conditional: Floats
    """[m, K], propensities given the slots above."""

    reward: NDArray[np.float32]
    """[m, K], in [-1, 1]; beyond it where `flip_probability` is above 0: unbiased, not bounded."""

    judged: Bools
    """[m, K], whether the slot's outcome is known."""

    context: Ints
    """[m], rows of the context table, -1 for none."""

    ranks: Ints
    """[m, K], positions in the logging policy's greedy order."""

    group: Ints
    """[m], the unit of resampling and of influence: in a log of devices the install."""

    release: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], of the policy that decided, 0 where unknown."""

    pool: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], size of the exploration pool, 0 where unknown."""

    eligible: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], how many items could be recommended, 0 where unknown."""

    epsilon: Floats = field(default_factory=lambda: np.empty(0))
    """[m], the scheme's ε, in slots that are not newcomers'."""

    guarded: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], leading slots that did not explore."""

    capped: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """[m], whether the pool had caps on attributes."""

    in_arm: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """[m], whether an arm of an experiment decided, which may be another policy."""

    diverse: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """[m], whether a slot's best item depended on what the slots above showed."""

    flip_probability: Floats = field(default_factory=lambda: np.empty(0))
    """[m], in [0, 1/2): the probability that a reward was reported with the opposite sign
    (`sanderling.users.randomized_response`)."""

    pass_probability: Floats = field(default_factory=lambda: np.empty(0))
    """[m], in (0, 1]: the probability that the decision survived shedding on a full device."""

    newcomers: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], how many newcomers the quota could draw, 0 without one."""

    newcomer_rate: Floats = field(default_factory=lambda: np.empty(0))
    """[m], the probability that a slot behind the guarded ones showed one of them."""

    newcomer: Bools = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    """[m, K], which slots did."""

    pinned: Bools = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    """[m, K], which slots show what the app pinned there: no policy chose it."""

    pinned_guarded: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], how many slots that would have been guarded `without_pinned_slots` took out."""

    slots: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], length of each slate; K unless given."""

    scheme: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    """[m], the exploration scheme, an index of `SCHEMES`; -1 for an unknown one."""

    influence: Floats = field(default_factory=lambda: np.empty(0))
    """[m], in (0, 1]: what `bound_influence` leaves of the decision's weight."""

    seq: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], the decision's sequence number in its install, 0 where unknown."""

    time: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """[m], seconds since 1970 UTC, 0 where unknown."""

    pool_items: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, np.object_))
    """[m], the catalog rows of the pool, best first, as the bytes of int32; b"" where the device
    did not log it. Pools have many lengths, and most decisions have none."""

    boosted: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    """[m], whether the app added amounts to scores."""

    pool_boosts: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, np.object_))
    """[m], what it added to those of `pool_items`, as the bytes of float32; b"" without boosts."""

    def __post_init__(self) -> None:
        zeros = ["release", "pool", "eligible", "epsilon", "guarded", "capped", "diverse", "time"]
        zeros += ["newcomers", "newcomer_rate", "seq", "scheme", "pinned_guarded", "in_arm"]
        zeros += ["flip_probability", "boosted"]
        ones = ("pass_probability", "influence")
        fills: dict[str, Any] = dict.fromkeys(zeros, 0) | dict.fromkeys(ones, 1)
        fills |= {"slots": self.items.shape[1], "pool_items": b"", "pool_boosts": b""}

        for name, fill in fills.items():
            given = getattr(self, name)
            if len(given) == 0:
                object.__setattr__(self, name, np.full(len(self), fill, given.dtype))
        for name in ("newcomer", "pinned"):
            if getattr(self, name).size == 0:
                object.__setattr__(self, name, np.zeros(self.items.shape, np.bool_))

    def __len__(self) -> int:
        return len(self.history)

    def take(self, rows: NDArray) -> Decisions:
        """Return the decisions at some indices or under a mask [m]."""
        return Decisions(**{name: column[rows] for name, column in vars(self).items()})

    def truncate(self, slots: int) -> Decisions:
        """Return the decisions as if no slate had more than `slots` slots."""
        first = {name: column[:, :slots] for name, column in vars(self).items() if column.ndim == 2}
        return replace(self, slots=np.minimum(self.slots, slots), **first)

    def without_slots(self, gone: Bools) -> Decisions:
        """Return the slates without some slots, bool [m, K]; the others keep their order."""
        gone = gone & (np.arange(gone.shape[1]) < self.slots[:, None])
        order = np.argsort(gone, axis=1, kind="stable")
        moved = {
            name: np.take_along_axis(column, order, axis=1)
            for name, column in vars(self).items()
            if column.ndim == 2
        }
        slots = self.slots - gone.sum(axis=1)
        missing = np.arange(gone.shape[1]) >= slots[:, None]
        moved["items"] = np.where(missing, -1, moved["items"])
        moved["ranks"] = np.where(missing, 0, moved["ranks"])
        moved["judged"] = moved["judged"] & ~missing
        return replace(self, slots=slots, **moved)

    def without_pinned_slots(self) -> Decisions:
        """Return the slates without the slots that the app pinned: each is a plain slate of its
        scheme, of fewer slots, of which fewer are guarded."""
        if not self.pinned.any():
            return self
        is_guarded = np.arange(self.items.shape[1]) < self.guarded[:, None]
        pinned_guarded = (self.pinned & is_guarded).sum(axis=1)
        others = self.without_slots(self.pinned)
        guarded = self.guarded - pinned_guarded
        return replace(others, guarded=guarded, pinned_guarded=pinned_guarded)

    def logged_pools(self, rows: NDArray) -> Ints:
        """Return the logged pools of some decisions int64 [q, M], best first, -1 behind the last.

        Items that the catalog does not know are left out. A pool that was not logged is all -1; M
        is 0 where none was.
        """
        pools = self.pool_items[rows]
        lengths = np.array([len(pool) for pool in pools], np.int64) // np.dtype(np.int32).itemsize
        table = np.full((len(pools), lengths.max(initial=0)), -1, np.int64)
        is_item = np.arange(table.shape[1]) < lengths[:, None]
        table[is_item] = np.frombuffer(b"".join(pools), np.int32)
        return table

    def logged_boosts(self, rows: NDArray) -> NDArray[np.float32]:
        """Return what was added to the scores of `logged_pools` float32 [q, M]."""
        lengths = [len(pool) for pool in self.pool_items[rows]]
        added = [
            boosts or bytes(length)
            for boosts, length in zip(self.pool_boosts[rows], lengths, strict=True)
        ]
        counts = np.array(lengths, np.int64) // np.dtype(np.float32).itemsize
        table = np.zeros((len(added), counts.max(initial=0)), np.float32)
        is_item = np.arange(table.shape[1]) < counts[:, None]
        table[is_item] = np.frombuffer(b"".join(added), np.float32)
        return table

    @property
    def noisy(self) -> Bools:
        """Which decisions have rewards under randomized response, bool [m]."""
        return self.flip_probability > 0.0

    def weights(self) -> Floats:
        """Return how much each decision counts when all are learned from, float64 [m] of mean 1.

        A decision that survived shedding with probability p stands for 1/p, at most 64: a faulty or
        hostile device must not outweigh all others. Rewards flipped with probability q have
        1 / (1 - 2q)² times the variance of exact ones after correction; they count by the inverse.
        """
        inverse_survival = np.minimum(1.0 / self.pass_probability, MAX_SHEDDING_WEIGHT)
        weights = (1.0 - 2.0 * self.flip_probability) ** 2 * inverse_survival * self.influence
        return weights / weights.mean() if len(weights) else weights

    def resampling_units(self) -> tuple[Ints, str]:
        """Return the independent unit of each decision, int64 [m], and what it is.

        Installs, unless there are fewer than 10: then the pseudonyms within them.
        """
        if len(np.unique(self.group)) >= MIN_INSTALLS:
            return self.group, "installs"
        return self.history, "pseudonyms, as there are fewer than 10 installs"

    def bound_influence(self) -> Decisions:
        """Return the decisions with the `influence` that bounds each install's weight.

        Bounded are an install's decisions together, its likes together, and its likes of one item
        (`influence.influence_factors`). `group` must be the install.
        """
        amount = replace(self, influence=np.ones(len(self))).weights()
        row, slot = np.nonzero(self.judged & (self.reward > 0.0) & (self.items >= 0))
        influence = influence_factors(self.group, amount)

        # An entry is a liked slot. A decision with several keeps the smallest of their factors.
        of_slot = influence_factors(
            self.group[row], (amount * influence)[row], self.items[row, slot]
        )
        smallest = np.ones(len(self))
        np.minimum.at(smallest, row, of_slot)
        return replace(self, influence=influence * smallest)

    def learned_marginal(self) -> Floats:
        """Return the marginal propensities with which to learn, float64 [m, K].

        Those below ε / M, which only a chain of rare draws has, count as ε / M: a device must not
        choose how much its decision weighs. Newcomers' are as logged.
        """
        least = self.epsilon * (1.0 - self.newcomer_rate) / np.maximum(self.pool, 1)
        return np.where(self.newcomer, self.marginal, np.maximum(self.marginal, least[:, None]))

    def epsilons(self) -> Floats:
        """Return the ε of each slot, float64 [m, K]: 0 in guarded slots."""
        slot = np.arange(self.items.shape[1])
        return np.where(slot < self.guarded[:, None], 0.0, self.epsilon[:, None])
