"""One bundle made ready to score, with the items that this device added to it. Immutable: changes make a new one.

Rows 0 … n-1 are the bundle's items; row n + i is added item i. Refuses to know users, randomness and storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.contract.bundle import Bundle
from sanderling.encoder import Encoder
from sanderling.state import StateModel
from sanderling.topk import quantize_rows, top

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Added:
    """Items that the device added: records, int8 rows [m, d], scales and biases [m]; and the bundle rows replaced."""

    records: tuple[Mapping[str, Any], ...]
    rows: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    replaced: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """The best eligible items in greedy order (rows and float64 scores), and how many were eligible in all."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    eligible: int


class Scorer:
    """Scores users against items. `space` names the space in which its states live: another one's mean nothing here."""

    def __init__(self, bundle: Bundle, encoder: Encoder | None = None, added: Added | None = None) -> None:
        sizes = bundle.manifest.sizes
        self.bundle = bundle
        self.encoder = encoder or Encoder(bundle.folder, sizes.text, sizes.max_tokens)
        self.state = StateModel(bundle.policy, bundle.manifest.kinds)
        self.added = added or _nothing(sizes.dim)
        files = bundle.manifest.files
        self.space = files["policy.safetensors"].sha256[:16] + files["items.safetensors"].sha256[:16]
        self._added_rows = {record["id"]: sizes.items + at for at, record in enumerate(self.added.records)}
        self._find = lru_cache(maxsize=65536)(bundle.find)

    def find(self, item: str) -> int | None:
        """Return the row of an item id, or None when neither the bundle nor the device knows it."""
        row = self._added_rows.get(item)
        return self._find(item) if row is None else row

    def record(self, row: int) -> Mapping[str, Any]:
        """Return the catalogue's entry of a row."""
        n = self.bundle.manifest.sizes.items
        return self.bundle.record(row) if row < n else self.added.records[row - n]

    def vector(self, row: int) -> Vector:
        """Return the vector [d] of a row, as the int8 row and its scale give it."""
        n, source = self.bundle.manifest.sizes.items, self.bundle.items
        if row >= n:
            return self.added.rows[row - n] * self.added.scale[row - n]
        return source.rows[row] * source.scale[row]

    def rank(self, user: Vector, k: int, exclude: Iterable[str] = ()) -> Ranking:
        """Return the k best items for a user vector [d], without the excluded ids; unknown ids are ignored."""
        items, n = self.bundle.items, self.bundle.manifest.sizes.items
        excluded = np.zeros(n + len(self.added.records), np.bool_)
        excluded[self.added.replaced] = True
        excluded[[row for row in map(self.find, exclude) if row is not None]] = True
        rows, scores = top(items.rows, items.scale, items.bias, user, k, excluded[:n])
        if len(self.added.records):
            more, more_scores = top(self.added.rows, self.added.scale, self.added.bias, user, k, excluded[n:])
            rows, scores = np.concatenate([rows, more + n]), np.concatenate([scores, more_scores])
            order = np.lexsort((rows, -scores))[:k]
            rows, scores = rows[order], scores[order]
        return Ranking(rows, scores, int(excluded.size - np.count_nonzero(excluded)))

    def project(self, text: str) -> Vector:
        """Return the item vector [d] of a text that has no learned residual: a new item's."""
        return self.bundle.policy["item.project"] @ self.encoder.encode(text)

    def with_added(self, records: Iterable[Mapping[str, Any]]) -> Scorer:
        """Return a scorer that also knows these records (id, text, …); a known id is replaced, the last one wins."""
        kept = {record["id"]: record for record in (*self.added.records, *records)}
        if not kept:
            return Scorer(self.bundle, self.encoder)
        vectors = np.stack([self.project(record["text"]) for record in kept.values()])
        rows, scale = quantize_rows(vectors)
        bias = np.full(len(kept), self.bundle.policy["item.bias"][0], np.float32)
        replaced = [row for row in map(self._find, kept) if row is not None]
        added = Added(tuple(kept.values()), rows, scale, bias, np.array(replaced, np.int64))
        return Scorer(self.bundle, self.encoder, added)

    def warm_up(self) -> None:
        """Compile and load everything that the first recommendation would otherwise wait for."""
        self.rank(self.state.user(self.state.start()), 1)


def _nothing(dimension: int) -> Added:
    empty = np.empty(0, np.float32)
    return Added((), np.empty((0, dimension), np.int8), empty, empty, np.empty(0, np.int64))
