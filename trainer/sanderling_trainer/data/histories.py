"""What users did, in order: the histories of an interaction log, and those that devices tell of, state by state.

Refuses to know decisions' chances and rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Interactions

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """One user's events in order: item rows, kinds, whether each was liked, its context's row (-1 for none), whether
    it is fresh, later than the inner split, and its time in seconds, 0 when nobody asks. All of one length. Events on
    items that the lab does not know are left out. The first `told` stand in another history too: a state
    began anew from them."""

    items: Ints
    kinds: Ints
    liked: NDArray[np.bool_]
    contexts: Ints
    fresh: NDArray[np.bool_]
    times: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    told: int = 0

    def __post_init__(self) -> None:
        if len(self.times) == 0:
            object.__setattr__(self, "times", np.zeros(len(self.items), np.int64))

    def __len__(self) -> int:
        return len(self.items)


def kinds_of(interactions: Interactions) -> list[str]:
    """Return the policy's kinds of event: "view" stands for every unknown kind, then those of the log, then "click"."""
    return list(dict.fromkeys(["view", *sorted(interactions.kinds), "click"]))


def histories_of(
    interactions: Interactions, kinds: Sequence[str], fresh_after: int
) -> list[History]:
    """Return a history for each user of the log; events later than `fresh_after` (seconds) are fresh."""
    codes = np.array(
        [kinds.index(kind) if kind in kinds else 0 for kind in interactions.kinds], np.int64
    )
    order = np.argsort(interactions.user, kind="stable")
    ends = np.flatnonzero(np.diff(interactions.user[order])) + 1
    return [
        History(
            items=interactions.item[rows],
            kinds=codes[interactions.kind[rows]],
            liked=interactions.reward[rows] > 0,
            contexts=interactions.context[rows],
            fresh=interactions.time[rows] > fresh_after,
            times=interactions.time[rows],
        )
        for rows in np.split(order, ends)
        if len(rows)
    ]
