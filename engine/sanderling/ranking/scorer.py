"""One bundle made ready to score, with what this device changed of it. Immutable: changes make a new one.

Rows 0 … n-1 are the bundle's items; row n + i is added item i. Refuses to know users, randomness and storage.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.exploration import schemes
from sanderling.ranking.caps import Cap, Groups, Ranking, Rows, capped
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.search_types import RowMask
from sanderling.ranking.text_encoder import TextEncoder
from sanderling.ranking.user_model import UserModel

Vector = NDArray[np.float32]

KNOWN_IDS = 65536
UNSEEN = -2  # stands for the row of an id that was not looked up yet
NO_CAPS: Mapping[str, int] = {}


@dataclass(frozen=True)
class CatalogDelta:
    """What the device knows better than the bundle: `records` of items that it added (`id`, `text`, …) or removed
    (without `text`); of these `added`, with their table, and the bundle's rows that are hidden."""

    records: tuple[Mapping[str, Any], ...]
    added: tuple[Mapping[str, Any], ...]
    table: Int8Index
    hidden: RowMask | None


class CatalogItem(NamedTuple):
    """What the catalogue says of an item."""

    id: str
    title: str
    attributes: dict[str, Any]


class _Parts(NamedTuple):
    """What is made of a bundle once, and shared by all its scorers; `groups` by attribute, as they are asked for."""

    table: Int8Index
    encoder: TextEncoder
    state: UserModel
    groups: dict[str, Groups]


class Scorer:
    """Scores users against items. `space` names the space in which its states live: another one's mean nothing here."""

    def __init__(
        self, bundle: Bundle, parts: _Parts | None = None, changes: CatalogDelta | None = None
    ) -> None:
        sizes = bundle.manifest.sizes
        self.bundle, self._parts = bundle, parts or _parts(bundle)
        self.encoder, self.state = self._parts.encoder, self._parts.state
        self.greedy = schemes.greedy(bundle.manifest.exploration)
        self.changes = changes or CatalogDelta((), (), _no_table(sizes.dim), None)
        files = bundle.manifest.files
        self.space = (
            files["policy.safetensors"].sha256[:16] + files["items.safetensors"].sha256[:16]
        )
        self._added_rows = {
            record["id"]: sizes.items + at for at, record in enumerate(self.changes.added)
        }
        self._rows: dict[Any, int] = {}  # ids looked up lately; unknown ones have row -1
        self._entry = lru_cache(maxsize=4096)(partial(_read_entry, bundle, self.changes.added))

    def find(self, item: str) -> int | None:
        """Return the row of an item id, or None when neither the bundle nor the device knows it."""
        row = self._rows.get(item)
        row = self._look_up(item) if row is None else row
        return row if row >= 0 else None

    def _look_up(self, item: Any) -> int:
        row = self._added_rows.get(item)
        if row is None and isinstance(item, str):
            row = self.bundle.find(item)
        if len(self._rows) >= KNOWN_IDS:
            self._rows.clear()
        found = -1 if row is None else row
        self._rows[item] = found
        return found

    def entry(self, row: int) -> CatalogItem:
        """Return the id, title and other attributes of a row; its attributes are shared, and not to be changed."""
        return self._entry(row)

    def vector(self, row: int) -> Vector:
        """Return the vector [d] of a row, as the int8 row and its scale give it."""
        n = self.bundle.manifest.sizes.items
        table, at = (self._parts.table, row) if row < n else (self.changes.table, row - n)
        return table.rows[at] * table.scale[at]

    def rank(
        self,
        user: Vector,
        k: int,
        exclude: Iterable[str] = (),
        at_most: Mapping[str, int] = NO_CAPS,
    ) -> Ranking:
        """Return the k best items for a user vector [d], without the excluded ids; unknown ids are ignored.

        `at_most` caps, by attribute, how many items of one value may be among them.
        """
        excluded = self._rows_of(tuple(exclude))
        if not at_most:
            return self._search(user, k, excluded)
        caps = [self._cap(attribute, most) for attribute, most in at_most.items()]
        return capped(partial(self._search, user), caps, k, excluded)

    def _rows_of(self, items: tuple[str, ...]) -> Rows:
        """Return the rows of ids, int64, -1 for unknown ones."""
        rows = np.fromiter(map(self._rows.get, items, repeat(UNSEEN)), np.int64, len(items))
        for at in np.flatnonzero(rows == UNSEEN).tolist():
            rows[at] = self._look_up(items[at])
        return rows

    def _search(self, user: Vector, k: int, excluded: Rows) -> Ranking:
        best = self._parts.table.top(user, k, excluded, self.changes.hidden)
        if not self.changes.added:
            return Ranking(*best)
        n = self.bundle.manifest.sizes.items
        more = self.changes.table.top(user, k, excluded - n)
        rows, scores = (
            np.concatenate([best.rows, more.rows + n]),
            np.concatenate([best.scores, more.scores]),
        )
        order = np.lexsort((rows, -scores))[:k]
        return Ranking(rows[order], scores[order], best.eligible + more.eligible)

    def _cap(self, attribute: str, most: int) -> Cap:
        n = self.bundle.manifest.sizes.items
        old = self.groups(attribute)
        if not self.changes.added:
            return Cap(old.of, old.members, most)
        new = Groups([record.get(attribute) for record in self.changes.added], n)

        def of(row: int) -> list[Hashable]:
            return old.of(row) if row < n else new.of(row)

        def members(name: Hashable) -> Rows:
            return np.concatenate([old.members(name), new.members(name)])

        return Cap(of, members, most)

    def groups(self, attribute: str) -> Groups:
        """Return the bundle's groups by an attribute; the first time the whole catalogue is read."""
        groups = self._parts.groups
        if attribute not in groups:
            groups[attribute] = Groups(self.bundle.values(attribute))
        return groups[attribute]

    def project(self, text: str) -> Vector:
        """Return the item vector [d] of a text that has no learned residual: a new item's."""
        return self.bundle.policy["item.project"] @ self.encoder.encode(text)

    def changed(self, records: Iterable[Mapping[str, Any]]) -> Scorer:
        """Return a scorer that also knows these records; of one id the last one counts."""
        kept = {record["id"]: record for record in (*self.changes.records, *records)}
        if not kept:
            return self
        added = tuple(record for record in kept.values() if "text" in record)
        hidden = np.zeros(self.bundle.manifest.sizes.items, np.bool_)
        hidden[[row for row in map(self.bundle.find, kept) if row is not None]] = True
        table = self._added_table(added) if added else _no_table(self.bundle.manifest.sizes.dim)
        return Scorer(
            self.bundle,
            self._parts,
            CatalogDelta(tuple(kept.values()), added, table, RowMask(hidden)),
        )

    def _added_table(self, added: Iterable[Mapping[str, Any]]) -> Int8Index:
        rows, scale = quantize_rows(np.stack([self.project(record["text"]) for record in added]))
        return Int8Index(
            rows, scale, np.full(len(rows), self.bundle.policy["item.bias"][0], np.float32)
        )

    def warm_up(self, attributes: Iterable[str] = ()) -> None:
        """Compile and load everything that the first recommendation, with caps on attributes, would else wait for."""
        for attribute in attributes:
            self.groups(attribute)
        self.rank(self.state.user(self.state.start()), 1)


def _read_entry(bundle: Bundle, added: tuple[Mapping[str, Any], ...], row: int) -> CatalogItem:
    n = bundle.manifest.sizes.items
    record = bundle.record(row) if row < n else added[row - n]
    attributes = {name: value for name, value in record.items() if name not in ("id", "title")}
    return CatalogItem(str(record["id"]), str(record.get("title", "")), attributes)


def _parts(bundle: Bundle) -> _Parts:
    items, sizes = bundle.items, bundle.manifest.sizes
    try:
        table = Int8Index(items.rows, items.scale, items.bias)
    except ValueError as error:
        raise BundleError(f"items.safetensors: {error}") from error
    encoder = TextEncoder(bundle.folder, sizes.text, sizes.max_tokens)
    return _Parts(table, encoder, UserModel(bundle.policy, bundle.manifest.kinds), {})


def _no_table(dimension: int) -> Int8Index:
    empty = np.empty(0, np.float32)
    return Int8Index(np.empty((0, dimension), np.int8), empty, empty)
