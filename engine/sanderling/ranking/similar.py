"""Items like an item, by the cosine of their vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.eligibility import Masks
from sanderling.ranking.index import Int8Index
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.search_types import SearchResult, merged

BLOCK_ROWS = 4096  # converted at a time, so that memory stays bounded


def cosine_index(index: Int8Index) -> Int8Index:
    """Return an index of the same int8 rows, not copied, that scores a unit query by its cosine.

    A row of zeros has cosine 0 with everything.
    """
    norms = np.concatenate([np.empty(0, np.float32), *_norms(index.rows)])
    scale = (1.0 / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return Int8Index(index.rows, scale, np.zeros(len(index.rows), np.float32))


def _norms(rows: NDArray[np.int8]) -> list[NDArray[np.float32]]:
    blocks = (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
    return [np.linalg.norm(block.astype(np.float32), axis=1) for block in blocks]


class SimilarItems:
    """Finds the nearest items of a catalog, that of the bundle and what the device added."""

    def __init__(self, scorer: Scorer, bundled: Int8Index | None = None) -> None:
        self.scorer = scorer
        self.bundled = bundled or cosine_index(scorer.index)
        """The bundle's items: another catalog of the same bundle can use it too."""
        self._added = cosine_index(scorer.overlay.index)

    def nearest(self, row: int, k: int, masks: Masks) -> SearchResult:
        """Return the k rows of the largest cosines with a row, which is left out.

        `masks` hide rows of the bundle and of the added items.
        """
        mask, added_mask = masks
        n = len(self.bundled.rows)
        source = self.bundled if row < n else self._added
        place = row if row < n else row - n
        query = source.rows[place] * source.scale[place]
        excluded = np.array([row])
        best = self.bundled.top(query, k, excluded, mask)
        if not len(self._added.rows):
            return best
        return merged(best, self._added.top(query, k, excluded - n, added_mask), n, k)
