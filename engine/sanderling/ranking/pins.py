"""Which of the items that an app pinned may be shown: a pin never breaks another rule."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from sanderling.ranking.caps import first_within
from sanderling.ranking.eligibility import Eligibility
from sanderling.ranking.row_lookup import UNKNOWN
from sanderling.ranking.scorer import NO_CAPS, Scorer
from sanderling.ranking.search_types import Rows

NO_PINS: Mapping[int, str] = MappingProxyType({})


class Pins(NamedTuple):
    """The pins of one slate, by ascending slot."""

    slots: tuple[int, ...]

    rows: Rows
    """The rows of their items, int64."""


NOTHING_PINNED = Pins((), np.empty(0, np.int64))


def check_known(scorer: Scorer, pin: Mapping[int, str]) -> None:
    """Raise `ValueError` for the id of an item that was never in the catalog."""
    for slot, item in pin.items():
        if scorer.find(item) is None and not scorer.is_removed(item):
            raise ValueError(
                f"pin: slot {slot}: expected an item of the catalog, found {item!r:.100}; correct"
                " the id, or add the item with `upsert_items`"
            )


def pins_in_force(
    scorer: Scorer,
    pin: Mapping[int, str],
    excluded: Rows,
    at_most: Mapping[str, int] = NO_CAPS,
    eligible: Eligibility | None = None,
) -> Pins:
    """Return the pins, by slot, whose items may be shown.

    Left out are items that were removed on this device or are not eligible, those of the rows
    `excluded` int64 [e], and those for which the pins before them leave no room under the caps
    `at_most`.
    """
    slots = np.array(sorted(pin), np.int64)
    rows = scorer.rows_of(tuple(pin[slot] for slot in slots.tolist()))
    is_removed = np.array([scorer.is_removed(pin[slot]) for slot in slots.tolist()], np.bool_)
    may_show = (rows != UNKNOWN) & ~is_removed & ~np.isin(rows, excluded)
    if eligible is not None:
        may_show[may_show] = eligible.holds(rows[may_show])
    if at_most:
        may_show[may_show] = first_within(scorer.caps(at_most), rows[may_show])
    return Pins(tuple(slots[may_show].tolist()), rows[may_show])
