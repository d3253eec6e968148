"""What searches in the active catalog need, made on the first search and kept until it changes."""

from __future__ import annotations

from threading import Lock

from sanderling.ranking.scorer import Scorer
from sanderling.ranking.similar import SimilarItems
from sanderling.ranking.text_search.search import TextSearch


class ItemSearch:
    """The searches of one engine. Thread-safe; a swap of the bundle or its catalog remakes them.

    What depends on the bundle alone is kept when only the device's own changes differ.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._similar: SimilarItems | None = None
        self._text: TextSearch | None = None

    def warm_up(self, scorer: Scorer) -> None:
        """Make what searches in a catalog need."""
        self.similar(scorer).bundled.warm_up()
        self.text(scorer).warm_up()

    def similar(self, scorer: Scorer) -> SimilarItems:
        """Return the search for similar items in a catalog."""
        with self._lock:
            last = self._similar
            if last is not None and last.scorer is scorer:
                return last
            shared = last.bundled if last and last.scorer.bundle is scorer.bundle else None
            self._similar = SimilarItems(scorer, shared)
            return self._similar

    def text(self, scorer: Scorer) -> TextSearch:
        """Return the search by words in a catalog; the first one of a bundle reads all of it."""
        with self._lock:
            last = self._text
            if last is not None and last.scorer is scorer:
                return last
            shared = last.bundle if last and last.scorer.bundle is scorer.bundle else None
            self._text = TextSearch(scorer, shared)
            return self._text
