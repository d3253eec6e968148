"""Caps: at most so many items of one group, such as an author, in one ranking. Refuses to know scores and users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

KEPT_GROUPS = 64  # whose rows are kept, so that memory is bounded


class Ranking(NamedTuple):
    """The best eligible items in greedy order (rows and float64 scores), and how many were eligible in all."""

    rows: Rows
    scores: NDArray[np.float64]
    eligible: int


class Groups:
    """The groups of each row by one attribute: its value, or each value of a list. Rows without it are in none."""

    def __init__(self, values: Iterable[Any], first: int = 0) -> None:
        self._first = first
        code_of: dict[Hashable, int] = {}
        codes: list[int] = []
        counts = [0]
        for value in values:
            codes += [
                code_of.setdefault(name, len(code_of)) for name in dict.fromkeys(_names(value))
            ]
            counts.append(len(codes))
        self._names, self._code_of = list(code_of), code_of
        self._codes, self._starts = np.array(codes, np.int32), np.array(counts, np.int64)
        self.members = lru_cache(maxsize=KEPT_GROUPS)(self._members)

    def of(self, row: int) -> list[Hashable]:
        """Return the groups of a row, counted from `first`."""
        start, stop = self._starts[row - self._first], self._starts[row - self._first + 1]
        return [self._names[code] for code in self._codes[start:stop].tolist()]

    def _members(self, name: Hashable) -> Rows:
        """Return the rows of a group, which may be unknown."""
        code = self._code_of.get(name)
        if code is None:
            return np.empty(0, np.int64)
        return (
            np.searchsorted(self._starts, np.flatnonzero(self._codes == code), side="right")
            - 1
            + self._first
        )


class Cap(NamedTuple):
    """At most `most` items of each group; `of` and `members` are those of `Groups`."""

    of: Callable[[int], list[Hashable]]
    members: Callable[[Hashable], Rows]
    most: int


def capped(
    search: Callable[[int, Rows], Ranking], caps: Iterable[Cap], k: int, excluded: Rows
) -> Ranking:
    """Return what is left of the whole ranking, best first, without items of a group that has its fill: k, or all.

    `search` returns the best so many without the excluded rows. It is asked again, without the groups that are full,
    until there are k.
    """
    fills = [(cap, Counter[Hashable]()) for cap in caps]
    rows: list[int] = []
    scores: list[float] = []
    eligible = None
    while len(rows) < k:
        found = search(k - len(rows), excluded)
        eligible = found.eligible if eligible is None else eligible
        if not len(found.rows):
            break
        gone = [excluded, found.rows]
        for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            groups = [(cap, counts, name) for cap, counts in fills for name in cap.of(row)]
            if all(counts[name] < cap.most for cap, counts, name in groups):
                rows.append(row)
                scores.append(score)
                for cap, counts, name in groups:
                    counts[name] += 1
                    if counts[name] == cap.most:
                        gone.append(cap.members(name))
        excluded = np.concatenate(gone)
    return Ranking(np.array(rows, np.int64), np.array(scores), eligible or 0)


def _names(value: Any) -> list[Hashable]:
    values = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return [one for one in values if isinstance(one, str | int | float)]
