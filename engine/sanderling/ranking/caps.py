"""Caps: limits the number of items per value of an attribute, such as an author, in one ranking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.search_types import Rows, SearchResult

CACHED_GROUPS = 64  # whose rows are kept, so that memory is bounded
NO_ROWS = np.empty(0, np.int64)


class Groups:
    """The groups of each row by one attribute: its value, or each value of a list.

    `values` are those of the rows `first`, `first + 1`, …; a row without the attribute is in no
    group.
    """

    def __init__(self, values: Iterable[Any], first: int = 0) -> None:
        self._first = first
        code_of: dict[Hashable, int] = {}
        codes: list[int] = []
        stops = [0]
        for value in values:
            groups = dict.fromkeys(_groups_in(value))  # without repetitions, in their order
            codes += [code_of.setdefault(group, len(code_of)) for group in groups]
            stops.append(len(codes))
        self._groups = list(code_of)
        self._code_of = code_of
        self._codes = np.array(codes, np.int32)  # those of all rows, one row after the other
        self._starts = np.array(stops, np.int64)
        self.rows_of = lru_cache(maxsize=CACHED_GROUPS)(self._rows_of)

    def groups_of(self, row: int) -> list[Hashable]:
        """Return the groups of a row."""
        start = self._starts[row - self._first]
        stop = self._starts[row - self._first + 1]
        return [self._groups[code] for code in self._codes[start:stop].tolist()]

    def _rows_of(self, group: Hashable) -> Rows:
        """Return the rows of a group, none for an unknown one."""
        code = self._code_of.get(group)
        if code is None:
            return np.empty(0, np.int64)
        positions = np.flatnonzero(self._codes == code)
        return np.searchsorted(self._starts, positions, side="right") - 1 + self._first


class ChangedGroups:
    """Groups by an attribute that the app changed for some rows since."""

    def __init__(
        self, groups: Groups, attribute: str, changed: Mapping[int, Mapping[str, Any]]
    ) -> None:
        self._groups = groups
        self._groups_of = {
            row: list(dict.fromkeys(_groups_in(record[attribute])))
            for row, record in changed.items()
            if attribute in record
        }
        self._changed_rows = np.array(list(self._groups_of), np.int64)
        self._rows_of: dict[Hashable, list[int]] = {}
        for row, of_row in self._groups_of.items():
            for group in of_row:
                self._rows_of.setdefault(group, []).append(row)

    def groups_of(self, row: int) -> list[Hashable]:
        """Return the groups of a row."""
        of_row = self._groups_of.get(row)
        return self._groups.groups_of(row) if of_row is None else of_row

    def rows_of(self, group: Hashable) -> Rows:
        """Return the rows of a group, none for an unknown one."""
        rows = self._groups.rows_of(group)
        joined = np.array(self._rows_of.get(group, []), np.int64)
        return np.concatenate([rows[~np.isin(rows, self._changed_rows)], joined])


class Cap(NamedTuple):
    """At most `at_most` items of each group; the functions are those of `Groups`."""

    groups_of: Callable[[int], list[Hashable]]
    rows_of: Callable[[Hashable], Rows]
    at_most: int


def apply_caps(
    search: Callable[[int, Rows], SearchResult],
    caps: Iterable[Cap],
    k: int,
    excluded: Rows,
    taken: Rows = NO_ROWS,
) -> SearchResult:
    """Return the k best items, or fewer, of which no group has more than its cap, best first.

    `search(count, excluded)` returns the best rows without the excluded ones. It is called again,
    without the groups that are full, until there are k. `eligible` is that of the first call. The
    rows `taken` count against the caps, and are not returned.
    """
    counters = [(cap, Counter[Hashable]()) for cap in caps]
    full = [excluded, taken]
    for cap, counter in counters:
        counter.update(group for row in taken.tolist() for group in cap.groups_of(row))
        full += [cap.rows_of(group) for group, n in counter.items() if n >= cap.at_most]
    excluded = np.concatenate(full)
    rows: list[int] = []
    scores: list[float] = []
    eligible = None
    while len(rows) < k:
        result = search(k - len(rows), excluded)
        eligible = result.eligible if eligible is None else eligible
        if not len(result.rows):
            break

        # What was looked at is not looked at again, whether it was taken or left out.
        newly_excluded = [excluded, result.rows]
        for row, score in zip(result.rows.tolist(), result.scores.tolist(), strict=True):
            groups = [
                (cap, counter, group) for cap, counter in counters for group in cap.groups_of(row)
            ]
            if any(counter[group] >= cap.at_most for cap, counter, group in groups):
                continue
            rows.append(row)
            scores.append(score)
            for cap, counter, group in groups:
                counter[group] += 1
                if counter[group] == cap.at_most:
                    newly_excluded.append(cap.rows_of(group))
        excluded = np.concatenate(newly_excluded)
    return SearchResult(np.array(rows, np.int64), np.array(scores), eligible or 0)


def first_within(caps: Sequence[Cap], rows: Rows) -> NDArray[np.bool_]:
    """Return which rows int64 [r] a slate can show that takes each, in order, unless a group of it
    is full."""
    counters = [Counter[Hashable]() for _ in caps]
    fits = np.zeros(len(rows), np.bool_)
    for place, row in enumerate(rows.tolist()):
        groups = [cap.groups_of(row) for cap in caps]
        fits[place] = all(
            counter[group] < cap.at_most
            for cap, counter, of_row in zip(caps, counters, groups, strict=True)
            for group in of_row
        )
        if fits[place]:
            for counter, of_row in zip(counters, groups, strict=True):
                counter.update(of_row)
    return fits


def _groups_in(value: Any) -> list[Hashable]:
    """Return the texts and numbers of an attribute's value; anything else is no group."""
    elements = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return [element for element in elements if isinstance(element, str | int | float)]
