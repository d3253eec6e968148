"""What a slate shows of an item: its entry in the catalog, of the bundle or of the device."""

from __future__ import annotations

from typing import Any, NamedTuple

from sanderling.bundle.reader import Bundle
from sanderling.ranking.overlay import CatalogOverlay


class CatalogItem(NamedTuple):
    """The catalog's entry of an item."""

    id: str
    title: str
    attributes: dict[str, Any]


def read_item(bundle: Bundle, overlay: CatalogOverlay, row: int) -> CatalogItem:
    """Return the entry of a row: the bundle's or an added item's, with what the app changed.

    Vectors are not shown: a bundle does not have those of its items either.
    """
    n = bundle.manifest.sizes.items
    types = bundle.columns.types if bundle.columns else {}
    record = bundle.record(row) if row < n else overlay.added[row - n]
    attributes = {
        name: value
        for name, value in record.items()
        if name not in ("id", "title") and types.get(name) != "vector"
    }
    for name, value in overlay.changed.get(row, {}).items():
        attributes[name] = value
        if value is None:
            del attributes[name]
    return CatalogItem(str(record["id"]), str(record.get("title", "")), attributes)
