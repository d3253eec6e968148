"""Which items a request may show: those that its rules leave of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sanderling.ranking.rules import Bools
from sanderling.ranking.search_types import RowMask, Rows

Masks = tuple[RowMask | None, RowMask | None]


@dataclass(frozen=True)
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
