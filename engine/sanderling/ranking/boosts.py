"""Boosts: amounts that a request adds to the scores of the items that meet a rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import shown
from sanderling.ranking import rules
from sanderling.ranking.catalog_attributes import CatalogAttributes
from sanderling.ranking.rules import Rule
from sanderling.ranking.search_types import Rows, Scores, SearchResult

MAX_BOOSTS = 16
MAX_SUMS = 16
"""How many different sums of boosts a catalog's items may have: each takes a search."""

MAX_BY = 1e6


class Boost(NamedTuple):
    """One boost: all items that meet a rule score more, or less, by an amount."""

    rule: Rule
    by: float


NO_BOOSTS: tuple[Boost, ...] = ()


@dataclass(frozen=True)
class RowBoosts:
    """What boosts add to the score of each row."""

    sums: Scores
    """The different sums of boosts, float64 [c]."""

    code: NDArray[np.uint8]
    """Each row's index of them, [n]: the bundle's rows, then those of added items."""

    def of(self, rows: Rows) -> Scores:
        """Return what is added to the scores of rows int64 [e], float64 [e]."""
        return self.sums[self.code[rows]]


def parse(boost: object) -> tuple[Boost, ...]:
    """Return the boosts of a request.

    Raises `TypeError` for what is no list of mappings with `where` and `by`, `ValueError` for more
    than 16 of them, an amount that is not in [-1e6, 1e6], and as `rules.parse` does.
    """
    if isinstance(boost, str | bytes | Mapping) or not isinstance(boost, Iterable):
        raise TypeError(
            'boost: expected a list such as [{"where": {...}, "by": 0.5}], found'
            f" {type(boost).__name__}"
        )
    entries = list(boost)
    if len(entries) > MAX_BOOSTS:
        raise ValueError(f"boost: expected at most {MAX_BOOSTS} entries, found {len(entries)}")
    return tuple(_parse_entry(entry, f"boost: entry {i}") for i, entry in enumerate(entries))


def _parse_entry(entry: object, place: str) -> Boost:
    if not isinstance(entry, Mapping):
        raise TypeError(
            f'{place}: expected a mapping such as {{"where": {{...}}, "by": 0.5}}, found'
            f" {type(entry).__name__}"
        )
    if set(entry) != {"where", "by"}:
        raise ValueError(
            f"{place}: expected `where` and `by`, found {shown(sorted(map(str, entry)))}"
        )
    by = entry["by"]
    if isinstance(by, bool) or not isinstance(by, Real):
        raise TypeError(f"{place}: by: expected a number, found {type(by).__name__}")
    number: Any = by  # an int may be too large for a float, but it can be compared with one
    if not -MAX_BY <= number <= MAX_BY:
        raise ValueError(
            f"{place}: by: expected a number in [{-MAX_BY:g}, {MAX_BY:g}], found {shown(by)}"
        )
    return Boost(rules.parse(entry["where"], f"{place}: where"), float(number))


def row_boosts(attributes: CatalogAttributes, boosts: tuple[Boost, ...]) -> RowBoosts:
    """Return what boosts add to each row of a catalog.

    Raises `ValueError` where its items have more than 16 different sums, and as
    `CatalogAttributes.matches` does.
    """
    total: Scores | None = None
    for i, boost in enumerate(boosts):
        is_match = np.concatenate(attributes.matches(boost.rule, f"boost: entry {i}: where"))
        added = np.where(is_match, boost.by, 0.0)
        total = added if total is None else total + added
    assert total is not None
    sums, code = np.unique(total, return_inverse=True)
    if len(sums) > MAX_SUMS:
        raise ValueError(
            f"boost: expected at most {MAX_SUMS} different sums of `by` over the items, found"
            f" {len(sums)}; use fewer boosts that overlap"
        )
    return RowBoosts(sums, code.ravel().astype(np.uint8))


def best_boosted(found: Sequence[SearchResult], boosts: Sequence[float], k: int) -> SearchResult:
    """Return the k best of what searches found, with one boost for each search: by the boosted
    score, then the plain one, then the row.

    A boost changes no order within a search, so that its k best rows are enough.
    """
    rows = np.concatenate([np.empty(0, np.int64), *(each.rows for each in found)])
    plain = np.concatenate([np.empty(0), *(each.scores for each in found)])
    scores = plain + np.repeat(np.array(boosts), [len(each.rows) for each in found])
    order = np.lexsort((rows, -plain, -scores))[:k]
    return SearchResult(rows[order], scores[order], sum(each.eligible for each in found))
