"""What a device changed of a bundle's catalog, as a scorer uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sanderling.ranking.index import Int8Index
from sanderling.ranking.row_changes import RowChanges
from sanderling.ranking.search_types import RowMask


@dataclass(frozen=True)
class CatalogOverlay:
    """The items that this device added to a bundle's catalog or removed from it."""

    records: tuple[Mapping[str, Any], ...]
    """Those of added items have `id`, `text` and attributes, those of removed ones no `text`."""

    added: tuple[Mapping[str, Any], ...]
    """Those of `records` that are added items."""

    index: Int8Index
    """The vectors of the added items."""

    mask: RowMask | None
    """The bundle's rows that are replaced or removed."""

    changed: RowChanges = field(default_factory=RowChanges)
    """The attributes that the app changed of the bundle's items, by row."""


def empty_index(dimension: int) -> Int8Index:
    """Return an index of vectors [d] that has none."""
    empty = np.empty(0, np.float32)
    return Int8Index(np.empty((0, dimension), np.int8), empty, empty)
