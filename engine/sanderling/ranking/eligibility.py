"""Which items a request may show: those that its rules leave of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sanderling.ranking.boosts import RowBoosts
from sanderling.ranking.rules import Bools
from sanderling.ranking.search_types import RowMask, Rows

Masks = tuple[RowMask | None, RowMask | None]

FEW_ROWS = 512
"""So few rows are scored one by one: a search of all would take longer."""


class Part(NamedTuple):
    """Eligible rows that have the same boost; a search takes `rows` where they are given."""

    boost: float
    masks: Masks
    rows: Rows | None


@dataclass(frozen=True, eq=False)
class Eligibility:
    """The eligible rows of the bundle and of the added items; those excluded by id come on top."""

    items: int
    """How many of the rows are the bundle's."""

    masks: Masks
    """Hide rows of the bundle and of the added items."""

    newcomers: Rows
    """The rows of newcomers that are eligible, ascending."""

    is_newcomer: Bools
    """[rows + 1]: tells them from other rows; the last is False, and stands for -1."""

    rows: Rows | None = None
    """The only eligible rows, ascending, where the caller listed items (`among`)."""

    boosts: RowBoosts | None = None
    """What is added to scores, None without boosts."""

    parts: tuple[Part, ...] = ()
    """With boosts: the eligible rows by what is added to their scores."""

    @cached_property
    def newcomer_masks(self) -> Masks:
        """All rows but eligible newcomers, of the bundle and of the added items."""
        hidden = ~self.is_newcomer[:-1]
        return RowMask(hidden[: self.items]), RowMask(hidden[self.items :])

    def confined(self, is_match: tuple[Bools, Bools]) -> Eligibility:
        """Return what is eligible under a rule that holds for some rows, bool [n] and [a]."""
        hidden = ~is_match[0]
        if self.masks[0] is not None:
            hidden |= self.masks[0].hidden
        is_newcomer = self.is_newcomer.copy()
        is_newcomer[:-1] &= np.concatenate(is_match)
        masks = RowMask(hidden), RowMask(~is_match[1])
        return Eligibility(self.items, masks, np.flatnonzero(is_newcomer), is_newcomer)

    def boosted(self, boosts: RowBoosts) -> Eligibility:
        """Return the same with amounts added to the scores."""
        eligible = self._eligible_rows()
        code = boosts.code[eligible]
        parts = []
        for i, boost in enumerate(boosts.sums.tolist()):
            rows = eligible[code == i]
            masks: Masks = (None, None)
            if len(rows) > FEW_ROWS and self.rows is None:
                hidden = np.ones(len(boosts.code), np.bool_)
                hidden[rows] = False
                masks = RowMask(hidden[: self.items]), RowMask(hidden[self.items :])
                parts.append(Part(boost, masks, None))
            elif len(rows):
                parts.append(Part(boost, masks, rows))
        return replace(self, boosts=boosts, parts=tuple(parts))

    def _eligible_rows(self) -> Rows:
        """Return all eligible rows, ascending."""
        if self.rows is not None:
            return self.rows
        is_eligible = np.ones(len(self.is_newcomer) - 1, np.bool_)
        for mask, first in zip(self.masks, (0, self.items), strict=True):
            if mask is not None:
                is_eligible[first : first + len(mask.hidden)] = ~mask.hidden
        return np.flatnonzero(is_eligible)

    def holds(self, rows: Rows) -> Bools:
        """Return which of some rows are eligible, bool [r]."""
        allowed = self.among(rows).rows if self.rows is None else self.rows
        assert allowed is not None
        return np.isin(rows, allowed)

    def among(self, listed: Rows) -> Eligibility:
        """Return what is eligible of listed rows, of which -1 stands for ids that have none."""
        rows = np.unique(listed[listed >= 0])
        bundled, added = np.split(rows, [np.searchsorted(rows, self.items)])
        mask, added_mask = self.masks
        if mask is not None:
            bundled = bundled[~mask.hidden[bundled]]
        if added_mask is not None:
            added = added[~added_mask.hidden[added - self.items]]
        rows = np.concatenate([bundled, added])
        newcomers = rows[self.is_newcomer[rows]]
        is_newcomer = np.zeros_like(self.is_newcomer)
        is_newcomer[newcomers] = True
        return Eligibility(self.items, self.masks, newcomers, is_newcomer, rows)
