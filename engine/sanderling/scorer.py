"""One bundle made ready to score, with the items that this device added to it. Immutable: changes make a new one.

Rows 0 … n-1 are the bundle's items; row n + i is added item i. Refuses to know users, randomness and storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling import explore
from sanderling.contract.bundle import Bundle
from sanderling.encoder import Encoder
from sanderling.errors import BundleError
from sanderling.state import StateModel
from sanderling.topk import Table, quantize_rows

Vector = NDArray[np.float32]

KNOWN_IDS = 65536


@dataclass(frozen=True)
class Added:
    """Items that the device added: their records and table; and the bundle rows that they replace, int64."""

    records: tuple[Mapping[str, Any], ...]
    table: Table
    replaced: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """The best eligible items in greedy order (rows and float64 scores), and how many were eligible in all."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    eligible: int


class Entry(NamedTuple):
    """What the catalogue says of an item."""

    id: str
    title: str
    attributes: dict[str, Any]


class Scorer:
    """Scores users against items. `space` names the space in which its states live: another one's mean nothing here."""

    def __init__(
        self, bundle: Bundle, encoder: Encoder | None = None, table: Table | None = None, added: Added | None = None
    ) -> None:
        sizes = bundle.manifest.sizes
        self.bundle, self._table = bundle, table or _table(bundle)
        self.encoder = encoder or Encoder(bundle.folder, sizes.text, sizes.max_tokens)
        self.state = StateModel(bundle.policy, bundle.manifest.kinds)
        self.greedy = explore.greedy(bundle.manifest.exploration)
        self.added = added or _nothing(sizes.dim)
        files = bundle.manifest.files
        self.space = files["policy.safetensors"].sha256[:16] + files["items.safetensors"].sha256[:16]
        self._added_rows = {record["id"]: sizes.items + at for at, record in enumerate(self.added.records)}
        self._rows: dict[Any, int] = {}  # ids looked up lately; unknown ones have row -1
        self._entry = lru_cache(maxsize=4096)(partial(_read_entry, bundle, self.added.records))

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
        self._rows[item] = -1 if row is None else row
        return self._rows[item]

    def entry(self, row: int) -> Entry:
        """Return the id, title and other attributes of a row."""
        id, title, attributes = self._entry(row)
        return Entry(id, title, dict(attributes))

    def vector(self, row: int) -> Vector:
        """Return the vector [d] of a row, as the int8 row and its scale give it."""
        n = self.bundle.manifest.sizes.items
        table, at = (self._table, row) if row < n else (self.added.table, row - n)
        return table.rows[at] * table.scale[at]

    def rank(self, user: Vector, k: int, exclude: Iterable[str] = ()) -> Ranking:
        """Return the k best items for a user vector [d], without the excluded ids; unknown ids are ignored."""
        n = self.bundle.manifest.sizes.items
        exclude = tuple(exclude)
        known = list(map(self._rows.get, exclude))
        if None in known:
            known = [self._look_up(item) for item in exclude]
        excluded = np.array(known, np.int64)
        if not self.added.records:
            best = self._table.top(user, k, excluded)
            return Ranking(best.rows, best.scores, best.eligible)
        best = self._table.top(user, k, np.concatenate([excluded[excluded < n], self.added.replaced]))
        more = self.added.table.top(user, k, excluded[excluded >= n] - n)
        rows, scores = np.concatenate([best.rows, more.rows + n]), np.concatenate([best.scores, more.scores])
        order = np.lexsort((rows, -scores))[:k]
        return Ranking(rows[order], scores[order], best.eligible + more.eligible)

    def project(self, text: str) -> Vector:
        """Return the item vector [d] of a text that has no learned residual: a new item's."""
        return self.bundle.policy["item.project"] @ self.encoder.encode(text)

    def with_added(self, records: Iterable[Mapping[str, Any]]) -> Scorer:
        """Return a scorer that also knows these records (id, text, …); a known id is replaced, the last one wins."""
        kept = {record["id"]: record for record in (*self.added.records, *records)}
        if not kept:
            return Scorer(self.bundle, self.encoder, self._table)
        vectors = np.stack([self.project(record["text"]) for record in kept.values()])
        rows, scale = quantize_rows(vectors)
        bias = np.full(len(kept), self.bundle.policy["item.bias"][0], np.float32)
        replaced = [row for row in map(self.bundle.find, kept) if row is not None]
        added = Added(tuple(kept.values()), Table(rows, scale, bias), np.array(replaced, np.int64))
        return Scorer(self.bundle, self.encoder, self._table, added)

    def warm_up(self) -> None:
        """Compile and load everything that the first recommendation would otherwise wait for."""
        self.rank(self.state.user(self.state.start()), 1)


def _read_entry(bundle: Bundle, added: Sequence[Mapping[str, Any]], row: int) -> Entry:
    n = bundle.manifest.sizes.items
    record = bundle.record(row) if row < n else added[row - n]
    attributes = {name: value for name, value in record.items() if name not in ("id", "title")}
    return Entry(str(record["id"]), str(record.get("title", "")), attributes)


def _table(bundle: Bundle) -> Table:
    items = bundle.items
    try:
        return Table(items.rows, items.scale, items.bias)
    except ValueError as error:
        raise BundleError(f"items.safetensors: {error}") from error


def _nothing(dimension: int) -> Added:
    empty = np.empty(0, np.float32)
    return Added((), Table(np.empty((0, dimension), np.int8), empty, empty), np.empty(0, np.int64))
