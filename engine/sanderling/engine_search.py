"""What an app calls without a decision: search by words, similar items, vectors of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sanderling.arguments import check_k, check_several, check_text
from sanderling.engine_parts import EngineParts
from sanderling.ranking import rules
from sanderling.ranking.eligibility import Masks
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import SearchResult
from sanderling.ranking.text_search.search import MAX_QUERY, words_in
from sanderling.slate import FoundItem, FoundItems, SlateItem
from sanderling.users.recommendation import user_vector

T = TypeVar("T")


class SearchCalls(EngineParts):
    """The calls of `Engine` that find items or read texts. Nothing is recorded, so nothing can be
    rewarded."""

    def search(
        self,
        query: str,
        user: str | None = None,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
    ) -> FoundItems:
        """Return the k best items for a query: by its words, its meaning and the user's taste.

        Words are looked for in titles and texts of attributes. The last word may be unfinished,
        and a word that no item has may have one typing error. Without `user` the taste is that of a
        new user; without the extra `text` only items with a word of the query are found. `where` is
        a rule that items must meet, as in `recommend`. The first search reads the whole catalog
        (see `warm_up`). docs/SEARCH.md defines the score.

        Characters beyond 512 and words beyond 16 are ignored; a query without words finds nothing.
        Raises `TypeError` for an argument of a wrong type, `ValueError` unless 1 <= k <= 1000, and
        for what is no rule, `BundleError` where the catalog cannot be read.
        """
        check_text(query=query)
        if user is not None:
            check_text(user=user)
        k = check_k(k)
        now_ms = self._begin_call()

        def found_in(scorer: Scorer, masks: Masks) -> FoundItems:
            if not words_in(query):
                return FoundItems(scorer.bundle.manifest.release, ())
            taste = self._taste(scorer, user, now_ms)
            meaning = self._recommender.encode(scorer, query[:MAX_QUERY])
            search = self._item_search.text(scorer)
            return _found(scorer, search.search(query, k, taste, meaning, masks))

        return self._tried(found_in, where)

    def similar(
        self,
        item: SlateItem | FoundItem | str,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
    ) -> FoundItems:
        """Return the k items most like an item, which is left out; scores are cosines.

        Items are compared by the vectors that the policy has learned of them, which those added on
        the device have from their text. `where` is a rule that items must meet, as in `recommend`.
        Raises `TypeError` for an argument of a wrong type, `ValueError` for an item that is not in
        the catalog, for what is no rule, and unless 1 <= k <= 1000.
        """
        id = item.id if isinstance(item, SlateItem | FoundItem) else item
        check_text(item=id)
        k = check_k(k)
        self._begin_call()

        def near_in(scorer: Scorer, masks: Masks) -> FoundItems | None:
            row = scorer.find(id)
            if row is None:
                return None
            return _found(scorer, self._item_search.similar(scorer).nearest(row, k, masks))

        found = self._tried(near_in, where)
        if found is None:
            raise ValueError(f"item: expected an item of the catalog, found {id!r:.100}")
        return found

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts by the active bundle's encoder, float32 [n, t].

        For an app's own models, such as a classifier of messages. Rows have length 1, so that their
        products are cosines, and are bit for bit what a context of `recommend` and a query of
        `search` become. Any text is allowed; characters beyond 8,192 and tokens beyond the bundle's
        `max_tokens` are ignored. The vectors of the last 1,024 texts are kept; nothing is counted
        or leaves the device. A release may bring another encoder: keep the texts, and encode them
        anew when `engine.release` changes.

        Raises `TypeError` for one text alone and for what is no text, `ImportError` without the
        extra `text`, `BundleError` where the encoder does not load or fails.
        """
        check_several(texts=texts)
        texts = list(texts)
        for text in texts:
            check_text(texts=text)
        self._begin_call()
        scorer = self._active_bundle.scorer
        vectors = np.empty((len(texts), scorer.bundle.manifest.sizes.text), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = scorer.encoder.encode(text, is_counted=False)
        return vectors

    def _tried(self, find: Callable[[Scorer, Masks], T], where: Mapping[str, Any] | None) -> T:
        """Return what is found in the active catalog, or, where that is of a release on trial and
        cannot be searched, in the one before."""
        scorer = self._active_bundle.scorer
        masks = _masks(scorer, where)  # what is wrong with a rule is the caller's error
        try:
            return find(scorer, masks)
        except Exception as error:
            scorer = self._active_bundle.scorer_after(scorer, error)
            return find(scorer, _masks(scorer, where))

    def _taste(self, scorer: Scorer, user: str | None, now_ms: int) -> Vector:
        """Return the user vector [d], without a user that of a new one."""
        if user is None:
            return scorer.user_model.user_vector(scorer.user_model.initial_state())
        return user_vector(scorer, self._profiles.snapshot(user, now_ms, scorer), None)


def _masks(scorer: Scorer, where: Mapping[str, Any] | None) -> Masks:
    """Return which rows a request may not find."""
    rule = None if where is None else rules.parse(where)
    return scorer.eligible(rule, None).masks


def _found(scorer: Scorer, result: SearchResult) -> FoundItems:
    items = []
    for row, score in zip(result.rows.tolist(), result.scores.tolist(), strict=True):
        id, title, attributes = scorer.item(row)
        items.append(FoundItem(id, title, score, dict(attributes)))
    return FoundItems(scorer.bundle.manifest.release, tuple(items))
