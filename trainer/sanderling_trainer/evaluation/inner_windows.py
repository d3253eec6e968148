"""Inner windows of a log: what was known at a cut, and what users with a history liked after it.

Where times can be compared between users a cut is a moment, and the window ends at the next one.
Where a time only orders a user's own events, as in a log of ranks or one whose events all share a
second, a cut hides the last events of each user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.data.time_split import quantile
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, trajectories

K = 10
MAX_USERS = 1500
"""More users are sampled: their nDCG has a standard error below .01."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """One cut of a log, and the users by whom models are compared at it."""

    name: str

    past: Interactions
    """What models learn from."""

    now: int
    """Time of the queries in seconds."""

    users: list[Trajectory]
    """Users with a history, who later liked something."""

    relevant: list[set[int]]
    """What each of them liked later; without what they had before, unless users repeat."""

    repeats: bool

    def liked_before(self) -> list[Rows]:
        """Return the rows of each user's history that were not disliked, oldest first."""
        is_like = np.array([kind != "dislike" for kind in self.past.kinds], np.bool_)
        return [user.before[is_like[user.before_kinds]] for user in self.users]

    def ndcg(self, scores: Scores) -> NDArray[np.float64]:
        """Return nDCG@10 of each user, float64 [u], for scores float32 [u, n] of the catalog."""
        values = np.zeros(len(self.users))
        discounts = 1.0 / np.log2(np.arange(2, K + 2))
        for index, (user, wanted) in enumerate(zip(self.users, self.relevant, strict=True)):
            row = scores[index]
            if not self.repeats:
                row = row.copy()
                row[user.before] = -np.inf
            slate = best_rows(row, K)
            hits = np.fromiter((item in wanted for item in slate.tolist()), np.bool_, len(slate))
            values[index] = discounts[: len(slate)][hits].sum()
            values[index] /= discounts[: min(K, len(wanted))].sum()
        return values


def best_rows(scores: NDArray[np.floating], k: int) -> Rows:
    """Return the k best places of scores [n], best first, ties to the lower place."""
    k = min(k, len(scores))
    bar = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > bar)
    level = np.flatnonzero(scores == bar)[: k - len(above)]
    return np.concatenate([above[np.argsort(-scores[above], kind="stable")], level])


def is_ordinal(log: Interactions) -> bool:
    """Return whether times order a user's own events alone.

    So it is taken to be where nine in ten users begin at the log's first second, and there are no
    more different times than the longest history has events.
    """
    users, first, count = np.unique(log.user, return_index=True, return_counts=True)
    if not len(users):
        return True
    begin_together = float(np.mean(log.time[first] == log.time[0]))
    return bool(begin_together >= 0.9 and len(np.unique(log.time)) <= count.max())


@dataclass(frozen=True)
class Cut:
    """A log in two parts."""

    past: Interactions
    now: int
    users: list[Trajectory]


def cut_after(log: Interactions, start: float, stop: float) -> Cut:
    """Return the earliest `start` of a log's events, and what users did up to `stop` (shares).

    `log` is in order of time. An ordinal log is cut in each user's own events, at least one of
    which is later where the user has two.
    """
    if is_ordinal(log):
        return _cut_each_user(log, 1.0 - start, 1.0 - stop)
    begin = quantile(log.time, start)
    end = quantile(log.time, stop)
    return Cut(log.select(log.time <= begin), begin, trajectories(log, begin, end))


def check_liked(cut: Cut) -> None:
    """Raise `TableError` where nothing before a cut is liked."""
    if not (cut.past.reward > 0).any():
        raise TableError(
            f"the log: expected at least one reward above 0 up to second {cut.now}, found none"
            " to learn from; check the column `reward`"
        )


def last_events(log: Interactions, hidden: int) -> Cut:
    """Return the log without each user's last `hidden` events, the first of which is later."""
    from_end = _from_end(log)
    later = from_end == hidden - 1
    return _cut_at(log, from_end >= hidden, later)


def windows(log: Interactions, repeats: bool, rng: np.random.Generator) -> list[Window]:
    """Return up to three windows of a log that is in order of time, the earliest first.

    In time they are the eighth, ninth and last tenth of the events, each after all that is earlier;
    of an ordinal log the third, second and first event from each user's end. A window that nobody
    can be measured by is left out.
    """
    if is_ordinal(log):
        cuts = {f"event {hidden} from the end": last_events(log, hidden) for hidden in (2, 1)}
    else:
        cuts = {
            f"{start:.0%} to {stop:.0%}": cut_after(log, start, stop)
            for start, stop in ((0.7, 0.8), (0.8, 0.9), (0.9, 1.0))
        }
    made = (_window(name, cut, repeats, rng) for name, cut in cuts.items())
    return [window for window in made if window.users]


def relevant_rows(user: Trajectory, repeats: bool) -> set[int]:
    """Return the rows that a user liked later, without those had before unless users repeat."""
    liked = set(user.later[user.liked].tolist())
    return liked if repeats else liked - set(user.before.tolist())


def _window(name: str, cut: Cut, repeats: bool, rng: np.random.Generator) -> Window:
    pairs = [(user, relevant_rows(user, repeats)) for user in cut.users if len(user.before)]
    pairs = [(user, rows) for user, rows in pairs if rows]
    if len(pairs) > MAX_USERS:
        kept = np.sort(rng.choice(len(pairs), MAX_USERS, replace=False))
        pairs = [pairs[index] for index in kept]
    if not (cut.past.reward > 0).any():
        pairs = []
    users = [user for user, _ in pairs]
    return Window(name, cut.past, cut.now, users, [rows for _, rows in pairs], repeats)


def _cut_each_user(log: Interactions, hidden_share: float, later_share: float) -> Cut:
    from_end = _from_end(log)
    length = np.bincount(log.user)[log.user]
    hidden = np.where(length > 1, np.maximum(1, np.round(hidden_share * length)), 0)
    ended = np.round(later_share * length)
    return _cut_at(log, from_end >= hidden, (from_end < hidden) & (from_end >= ended))


def _cut_at(log: Interactions, past: NDArray[np.bool_], later: NDArray[np.bool_]) -> Cut:
    order = np.argsort(log.user, kind="stable")
    starts = np.flatnonzero(np.diff(log.user[order])) + 1
    users = [
        _trajectory(log, rows[past[rows]], rows[later[rows]])
        for rows in np.split(order, starts)
        if later[rows].any()
    ]
    before = log.select(past)
    return Cut(before, int(before.time.max(initial=0)), users)


def _trajectory(log: Interactions, before: Rows, later: Rows) -> Trajectory:
    return Trajectory(
        user=int(log.user[later[0]]),
        before=log.item[before],
        before_kinds=log.kind[before],
        later=log.item[later],
        kinds=log.kind[later],
        liked=log.reward[later] > 0,
        contexts=log.context[later],
    )


def _from_end(log: Interactions) -> Rows:
    """Return how many later events the user of each event has, int64 [e]."""
    order = np.argsort(log.user, kind="stable")
    users = log.user[order]
    end = np.searchsorted(users, users, side="right")
    from_end = np.empty(len(log), np.int64)
    from_end[order] = end - 1 - np.arange(len(log))
    return from_end


def histories_by_user(log: Interactions) -> list[Rows]:
    """Return the liked rows of each user of a log, oldest first."""
    liked: Sequence[int] | NDArray[np.intp] = np.flatnonzero(log.reward > 0)
    order = np.asarray(liked)[np.argsort(log.user[liked], kind="stable")]
    return np.split(log.item[order], np.flatnonzero(np.diff(log.user[order])) + 1)
