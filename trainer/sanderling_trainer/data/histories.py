"""User histories in order of time, from an interaction log or from what devices report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Interactions

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """The s events of one user in order of time; every column has length s.

    Events on items that the catalog lacks are left out.
    """

    items: Ints
    """Catalog rows."""

    kinds: Ints
    """Codes of the policy's kinds of event."""

    liked: NDArray[np.bool_]
    """Whether the reward was positive."""

    contexts: Ints
    """Rows of the context table, -1 for none."""

    is_validation: NDArray[np.bool_]
    """Whether the event is later than the inner split, so that it validates and
    is not learned from.
    """

    times: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Seconds since 1970 UTC; 0 throughout unless given."""

    n_replayed: int = 0
    """How many leading events are in another history too, because a reset state was
    rebuilt from them.
    """

    install: int = -1
    """Number of the install that reported the events, -1 for none."""

    influence: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """What the bound of its install leaves of each event as a target, in [0, 1]; 1 throughout
    unless given.
    """

    seqs: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Sequence numbers of the events in their install; 0 throughout unless given."""

    is_response: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """Whether the event answered a slate, so that the slate's decision teaches it; false throughout
    unless given.
    """

    def __post_init__(self) -> None:
        for name in ("times", "seqs", "is_response"):
            given = getattr(self, name)
            if len(given) == 0:
                object.__setattr__(self, name, np.zeros(len(self.items), given.dtype))
        if len(self.influence) == 0:
            object.__setattr__(self, "influence", np.ones(len(self.items), np.float32))

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> History:
        """Return the events from `start` up to `stop`."""
        columns = {name: column for name, column in vars(self).items() if np.ndim(column) == 1}
        cut = {name: column[start:stop] for name, column in columns.items()}
        return replace(self, **cut, n_replayed=max(0, min(self.n_replayed, stop) - start))


def policy_kinds(kinds: Iterable[str]) -> list[str]:
    """Return the kinds of event that a policy distinguishes, given those of its log.

    The first, "view", stands for every kind that the policy does not know.
    """
    return list(dict.fromkeys(["view", *sorted(kinds), "click"]))


def kind_codes(names: Sequence[str], kinds: Sequence[str]) -> Ints:
    """Return the code int64 [len(names)] of each name in a policy's kinds, 0 where unknown."""
    return np.array([kinds.index(name) if name in kinds else 0 for name in names], np.int64)


def histories_of(
    interactions: Interactions, kinds: Sequence[str], validation_after: int
) -> list[History]:
    """Return one history for each user of the log.

    kinds: the policy's kinds of event.
    validation_after: seconds; later events are for validation.
    """
    codes = kind_codes(interactions.kinds, kinds)
    order = np.argsort(interactions.user, kind="stable")
    ends = np.flatnonzero(np.diff(interactions.user[order])) + 1
    return [
        History(
            items=interactions.item[rows],
            kinds=codes[interactions.kind[rows]],
            liked=interactions.reward[rows] > 0,
            contexts=interactions.context[rows],
            is_validation=interactions.time[rows] > validation_after,
            times=interactions.time[rows],
        )
        for rows in np.split(order, ends)
        if len(rows)
    ]
