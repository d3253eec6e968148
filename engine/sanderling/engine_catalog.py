"""What an app calls to change the catalog on its device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sanderling.arguments import check_records, check_several, ids_of
from sanderling.engine_parts import EngineParts
from sanderling.ranking import attribute_changes, catalog_overlay
from sanderling.slate import SlateItem


class CatalogCalls(EngineParts):
    """The calls of `Engine` that add items to the catalog, change and remove them."""

    def upsert_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add or replace items, each with `id`, `text` and any attributes to show at once.

        Values that JSON changes become what JSON makes of them: a date its ISO text, a tuple a
        list, NaN None.

        Attributes have the types of the catalog's (docs/ATTRIBUTES.md) and move the item's vector
        as its text does. What the release does not know of them counts as missing.

        Raises `TypeError` for a single item and for a value of another type than its attribute's,
        `ValueError` naming the field that is wrong, `StorageError` where another engine holds the
        state folder, or it cannot be written; then nothing was added.
        """
        check_several(items=items)
        items = list(items)
        check_records(items)
        now_ms = self._begin_call()
        self._active_bundle.update_overlay(
            [catalog_overlay.addition(item, now_ms) for item in items]
        )

    def set_attributes(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change attributes of items, in effect from the next call on: `{"sku-1": {"stock": 0}}`.

        Nothing is encoded: an item keeps its vector. None takes an attribute away. Unknown ids are
        remembered for bundles that have them. A change gives way to a bundle that was created later
        and has that attribute of the item. The first change of an attribute reads the whole catalog
        (see `warm_up`).

        Raises `TypeError` for another form and for a value of another type than the attribute's,
        `ValueError` for `id`, `title` and `text` and for what JSON cannot hold, `StorageError` as
        `upsert_items` does; then nothing was changed.
        """
        checked = attribute_changes.checked(changes)
        now_ms = self._begin_call()
        self._active_bundle.change_attributes(checked, now_ms)

    def remove_items(self, ids: Iterable[SlateItem | str]) -> None:
        """Never show these items again, under any bundle, until `upsert_items` brings them back.

        Unknown ids are remembered too. Raises `TypeError` for a single id, `ValueError` for what
        cannot be an id, `StorageError` as `upsert_items` does; then nothing was removed.
        """
        removed = ids_of(ids, "ids")
        now_ms = self._begin_call()
        self._active_bundle.update_overlay([catalog_overlay.removal(id, now_ms) for id in removed])
