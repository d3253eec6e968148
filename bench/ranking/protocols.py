"""How models are compared: what they train on, what they are queried with, what is relevant.

A `Benchmark` holds two tasks: on `tune` every model chooses its settings; on `report`, trained
again on all earlier data, it is measured once. A model ranks the whole catalog known at the
time; sampled candidates would not even order models correctly (Krichene and Rendle 2020). Ties
go to the lower row.

    online_retail       one split in time for all users: the first 80 % of the events train, the
                        next 10 % tune, the last 10 % report. Warm users with at least one new
                        known item. These are the splits of the published figures.
    online_retail_span  the same at 80 % and 90 % of the time span, which puts more users and new
                        items into the test
    beauty, ml-100k     leave one out: a user's last event reports, the one before tunes. It leaks
                        time, since other users' later events are known; only for comparison with
                        published tables
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.ranking import data
from bench.ranking.data import Log

K, DEPTH = 10, 20
CHUNK = 1024

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Queries:
    """One query a user: the user's history and the catalog at the time of the query.

    `user` int64 [u] as in the log. `items` and `times` are each user's past rows and seconds,
    oldest first, with repeats, empty for a new user. `now` int64 [u] is the time of the query, no
    earlier than any event of `times`. `texts` [n] are those of all rows; the first m were in the
    log of `fit`, the others are new and have only a text.
    """

    user: Rows
    items: Sequence[Rows]
    times: Sequence[Rows]
    now: Rows
    texts: Sequence[str]

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.user)

    def part(self, start: int, stop: int) -> Queries:
        """Return the queries from start up to stop."""
        cut = slice(start, stop)
        return Queries(self.user[cut], self.items[cut], self.times[cut], self.now[cut], self.texts)


class Model(Protocol):
    """A peer in the table."""

    name: str

    def fit(self, train: Log, seed: int) -> object:
        """Learn from the log; same log and seed, same model."""

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return float32 [u, n], higher is better, -inf for what must not be shown.

        [u, m] is allowed to a model that cannot score items first seen after `fit`;
        they count as -inf.
        """


@dataclass(frozen=True)
class View:
    """One way to ask and judge: which of the task's users, over which rows, with what they have
    had removed or not.

    `users` int64 [v] are places in the task's queries, `relevant` their rows had later,
    `candidates` bool [n].
    """

    name: str
    users: Rows
    relevant: Sequence[set[int]]
    candidates: NDArray[np.bool_]
    remove_seen: bool


@dataclass(frozen=True)
class Task:
    """What to learn from, what to answer, and the views under which answers are judged; the
    first is the main one.
    """

    train: Log
    queries: Queries
    views: Sequence[View]

    @property
    def main(self) -> View:
        """The view that settings are chosen by."""
        return self.views[0]


@dataclass(frozen=True)
class Benchmark:
    """A data set under a protocol; `clocked` says whether users' times can be compared."""

    name: str
    tune: Task
    report: Task
    clocked: bool


def top(scores: NDArray[np.float32], k: int) -> Rows:
    """Return the k best columns int64 [u, k] of scores [u, n], ties to the lower column; -1
    where a score is -inf.

    Raises `ValueError` for a NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("expected scores without NaN, found one")
    k = min(k, scores.shape[1])
    size = max(1, scores.shape[1] // (8 * k))
    peaks = np.maximum.reduceat(scores, np.arange(0, scores.shape[1], size), axis=1)
    # at least k columns reach the k-th highest peak of all blocks, so nothing below it can be among
    # the k best
    bar = np.maximum(np.partition(peaks, -k, axis=1)[:, -k], np.finfo(np.float32).min)
    found = np.full((len(scores), k), -1, np.int64)
    for row, (values, least) in enumerate(zip(scores, bar, strict=True)):
        above = np.flatnonzero(values > least)
        level = np.flatnonzero(values == least)[: max(0, k - len(above))]
        best = np.concatenate([above[np.argsort(-values[above], kind="stable")[:k]], level])
        found[row, : len(best)] = best
    return found


def slates(model: Model, task: Task) -> dict[str, Rows]:
    """Return each view's slates int64 [v, DEPTH] by a fitted model, asked a
    thousand users at a time.
    """
    found: dict[str, list[Rows]] = {view.name: [] for view in task.views}
    for start in range(0, len(task.queries), CHUNK):
        queries = task.queries.part(start, start + CHUNK)
        scores = _full(model.scores(queries), len(queries.texts), model.name)
        for view in task.views:
            mine = view.users[(view.users >= start) & (view.users < start + CHUNK)] - start
            found[view.name].append(
                top(_masked(scores[mine], [queries.items[at] for at in mine], view), DEPTH)
            )
    return {name: np.concatenate(parts) for name, parts in found.items()}


def read(name: str, root: Path) -> Benchmark:
    """Return a benchmark by name; raises `SystemExit` for a name that is none."""
    if name not in BENCHMARKS:
        raise SystemExit(f"expected a data set of {', '.join(BENCHMARKS)}, found {name}")
    return BENCHMARKS[name](root)


def temporal(name: str, log: Log, tune: float, report: float) -> Benchmark:
    """Return the benchmark that cuts a log in time: fit before `tune` and ask there, then
    fit before `report`.
    """
    before = log.select(log.time < report)
    return Benchmark(name, _at(before, tune), _at(log, report), clocked=True)


def leave_one_out(name: str, log: Log, clocked: bool) -> Benchmark:
    """Return the benchmark that reports on each user's last event, and tunes on the one before.

    Users with fewer than three events are trained on and not queried. An item that no other user
    has cannot be found. The time of a query is that of the user's last known event.
    """
    order = np.lexsort((np.arange(len(log)), log.user))
    users = log.user[order]
    counts = np.bincount(users)
    from_end = np.empty(len(log), np.int64)
    from_end[order] = np.cumsum(counts)[users] - 1 - np.arange(len(log))
    from_end[counts[log.user] < 3] = 2
    return Benchmark(name, _last(log, from_end, 1), _last(log, from_end, 0), clocked)


def _at(log: Log, moment: float) -> Task:
    past, later = log.time < moment, log.time >= moment
    train, n = log.select(past), len(log.texts)
    users = np.unique(log.user[later])
    queries = _queries(log, past, users, np.full(len(users), int(np.ceil(moment)), np.int64))
    wanted = [set(rows.tolist()) for rows in _histories(log.item[later], log.user[later], users)]
    known = np.arange(n) < len(train.texts)
    views = list(_views(queries, wanted, known))
    return Task(train, queries, [view for view in views if len(view.users)])


def _views(queries: Queries, wanted: list[set[int]], known: NDArray[np.bool_]) -> Iterator[View]:
    """Yield the temporal protocol's views of what each user wanted later."""
    old = set(np.flatnonzero(known).tolist())
    seen = [set(rows.tolist()) for rows in queries.items]
    warm = [bool(rows) for rows in seen]
    fresh = [(want - had) & old for want, had in zip(wanted, seen, strict=True)]
    cold = [want - old for want in wanted]

    def view(
        name: str,
        relevant: list[set[int]],
        who: list[bool],
        candidates: NDArray[np.bool_],
        remove: bool,
    ) -> View:
        users = np.array([at for at, rows in enumerate(relevant) if rows and who[at]], np.int64)
        return View(name, users, [relevant[at] for at in users], candidates, remove)

    yield view("warm users, seen removed", fresh, warm, known, remove=True)
    yield view("warm users, seen kept", [want & old for want in wanted], warm, known, remove=False)
    yield view("warm users, all items", fresh, warm, np.ones_like(known), remove=True)
    yield view("cold items among cold items", cold, warm, ~known, remove=True)
    yield view("cold items among all items", cold, warm, np.ones_like(known), remove=True)
    yield view("cold users", fresh, [not is_warm for is_warm in warm], known, remove=True)


def _last(log: Log, from_end: Rows, place: int) -> Task:
    past, asked = from_end > place, from_end == place
    users = log.user[asked]
    order = np.argsort(users, kind="stable")
    users, items = users[order], log.item[asked][order]
    queries = _queries(log, past, users, None)
    fair = [at for at, item in enumerate(items.tolist()) if item not in queries.items[at]]
    relevant, everything = [{int(items[at])} for at in fair], np.ones(len(log.texts), np.bool_)
    view = View(
        "leave one out, seen removed",
        np.array(fair, np.int64),
        relevant,
        everything,
        remove_seen=True,
    )
    train = log.select(past)
    return Task(Log(train.user, train.item, train.time, log.texts), queries, [view])


def _queries(log: Log, past: NDArray[np.bool_], users: Rows, now: Rows | None) -> Queries:
    items = _histories(log.item[past], log.user[past], users)
    times = _histories(log.time[past], log.user[past], users)
    if now is None:
        now = np.array([time[-1] for time in times], np.int64)
    return Queries(users, items, times, now, log.texts)


def _histories(values: Rows, user: Rows, users: Rows) -> list[Rows]:
    """Return the values of each of the users, in the log's order."""
    order = np.argsort(user, kind="stable")
    starts, stops = (np.searchsorted(user[order], users, side) for side in ("left", "right"))
    return [values[order[start:stop]] for start, stop in zip(starts, stops, strict=True)]


def _full(scores: NDArray[np.float32], n: int, name: str) -> NDArray[np.float32]:
    if scores.dtype != np.float32 or scores.ndim != 2 or scores.shape[1] > n:
        raise ValueError(
            f"{name}: expected scores float32 [u, <= {n}],"
            f" found {scores.dtype} {list(scores.shape)}"
        )
    missing = n - scores.shape[1]
    return np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf) if missing else scores


def _masked(scores: NDArray[np.float32], seen: list[Rows], view: View) -> NDArray[np.float32]:
    out = np.where(view.candidates, scores, np.float32(-np.inf))
    if view.remove_seen:
        for row, had in zip(out, seen, strict=True):
            row[had] = -np.inf
    return out


def _online_retail(root: Path) -> Benchmark:
    log = data.online_retail(root)
    tune, report = np.quantile(log.time, [0.8, 0.9])
    return temporal("online_retail", log, tune, report)


def _online_retail_span(root: Path) -> Benchmark:
    log = data.online_retail(root)
    start, span = log.time[0], log.time[-1] - log.time[0]
    return temporal("online_retail_span", log, start + 0.8 * span, start + 0.9 * span)


BENCHMARKS: dict[str, Callable[[Path], Benchmark]] = {
    "online_retail": _online_retail,
    "online_retail_span": _online_retail_span,
    "beauty": lambda root: leave_one_out("beauty", data.beauty(root), clocked=False),
    "ml-100k": lambda root: leave_one_out("ml-100k", data.movielens(root), clocked=True),
}
