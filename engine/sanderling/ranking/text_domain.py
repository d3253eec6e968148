"""Which texts are out of the domain that a release was trained on: far from all of the catalog's
texts, or with too many tokens that the tokenizer does not know.

The bundle's limits are such that of the catalog's own texts, of which the encoder had seen none,
hardly any was beyond them (docs/MONITORING.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN_TOKENS = ("[UNK]", "<unk>")
"""What tokenizers put in the place of what their vocabulary lacks."""

BLOCK = 16
"""Counts of items, and those of queries, leave the device only for so many of them or more."""


@dataclass(frozen=True)
class TextDomain:
    """Where the training texts are."""

    centroids: NDArray[np.float32]
    """[k, t], the unit vectors around which they lie."""

    limits: NDArray[np.float32]
    """[2]: the largest distance to the nearest of these, and the largest share of unknown tokens,
    of a text within the domain."""

    @staticmethod
    def of(policy: Mapping[str, NDArray[Any]]) -> TextDomain | None:
        """Return the domain of a bundle's policy, None where it has none."""
        centroids = policy.get("text.centroids")
        return None if centroids is None else TextDomain(centroids, policy["text.limits"])

    def distance(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return 1 minus the greatest cosine with a centroid, [m], of unit vectors [m, t]."""
        nearest: NDArray[np.float32] = (vectors @ self.centroids.T).max(axis=1)
        return 1.0 - nearest

    def is_outside(self, vector: NDArray[np.float32], unknown: float) -> bool:
        """Return whether a text is beyond a limit, given its unit vector [t] and its share of
        unknown tokens."""
        limit, most_unknown = self.limits.tolist()
        # Rounded as the limit was: a share that equals it is within.
        is_unknown = float(np.float32(unknown)) > most_unknown
        return is_unknown or float(self.distance(vector[None])[0]) > limit


def unknown_share(tokenizer: Any, encoding: Any) -> float:
    """Return the share of a text's tokens that the vocabulary lacks, in [0, 1].

    tokenizer, encoding: of the library `tokenizers`. Tokens that mark start and end do not count.
    """
    unknown = {tokenizer.token_to_id(token) for token in UNKNOWN_TOKENS} - {None}
    ids = [
        id
        for id, is_special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        if not is_special or id in unknown
    ]
    return sum(id in unknown for id in ids) / max(1, len(ids))


@dataclass
class TextCounters:
    """How many texts were encoded since the active release was opened, each once while it is
    cached, and how many were out of its domain; all 0 in bundles without a domain."""

    items: int = 0
    """Texts of items that the app added."""

    items_outside: int = 0

    queries: int = 0
    """Contexts of `recommend` and queries of `search`."""

    queries_outside: int = 0


class DomainMonitor:
    """Counts the texts that an encoder reads. Thread-safe."""

    def __init__(self, domain: TextDomain | None) -> None:
        self._domain = domain
        self._counters = TextCounters()
        self._taken = TextCounters()
        self._lock = Lock()

    def count(self, vector: NDArray[np.float32], unknown: float, *, is_item: bool) -> None:
        """Count a text by its unit vector [t] and its share of unknown tokens."""
        if self._domain is None:
            return
        is_outside = self._domain.is_outside(vector, unknown)
        with self._lock:
            if is_item:
                self._counters.items += 1
                self._counters.items_outside += is_outside
            else:
                self._counters.queries += 1
                self._counters.queries_outside += is_outside

    def counters(self) -> TextCounters:
        """Return what was counted."""
        with self._lock:
            return replace(self._counters)

    def take(self) -> TextCounters | None:
        """Return what no earlier call returned, of items as soon as there are `BLOCK` of them, and
        of queries likewise; None before that.

        Each by itself: beside items that are known to the app a single query would show.
        """
        if self._domain is None:
            return None
        with self._lock:
            now, taken = self._counters, self._taken
            tells_items = now.items >= taken.items + BLOCK
            tells_queries = now.queries >= taken.queries + BLOCK
            if not (tells_items or tells_queries):
                return None
            new = TextCounters()
            if tells_items:
                new.items = now.items - taken.items
                new.items_outside = now.items_outside - taken.items_outside
                taken.items, taken.items_outside = now.items, now.items_outside
            if tells_queries:
                new.queries = now.queries - taken.queries
                new.queries_outside = now.queries_outside - taken.queries_outside
                taken.queries, taken.queries_outside = now.queries, now.queries_outside
            return new
