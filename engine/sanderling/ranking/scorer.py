"""Scores the items of a bundle, and those that this device added, for a user vector.

Rows 0 … n-1 are the bundle's items; row n + i is added item i.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking.added_items import index_of
from sanderling.ranking.attribute_changes import Changes
from sanderling.ranking.boosts import NO_BOOSTS, Boost, best_boosted
from sanderling.ranking.caps import NO_ROWS, Cap, ChangedGroups, Groups, apply_caps
from sanderling.ranking.catalog_attributes import BundleColumns, CatalogAttributes
from sanderling.ranking.catalog_item import CatalogItem, read_item
from sanderling.ranking.eligibility import Eligibility, Masks, Part
from sanderling.ranking.features import FeatureMap
from sanderling.ranking.index import Int8Index
from sanderling.ranking.newcomers import Newcomers, outside
from sanderling.ranking.overlay import CatalogOverlay, empty_index
from sanderling.ranking.partial_indexes import PartialIndexes
from sanderling.ranking.row_lookup import UNKNOWN, RowLookup
from sanderling.ranking.rule_cache import RuleCache
from sanderling.ranking.rules import Rule
from sanderling.ranking.search_types import RowMask, Rows, Scores, SearchResult, merged
from sanderling.ranking.text_domain import TextDomain
from sanderling.ranking.text_encoder import TextEncoder
from sanderling.ranking.user_model import UserModel

Vector = NDArray[np.float32]

CACHED_ITEMS = 4096  # rows whose catalog entries are kept
NO_CAPS: Mapping[str, int] = {}


@dataclass(frozen=True)
class _BundleParts:
    """What all scorers of one bundle share; `groups` and `columns` are filled on demand."""

    index: Int8Index
    encoder: TextEncoder
    user_model: UserModel
    groups: dict[str, Groups]
    columns: BundleColumns
    context_features: FeatureMap | None


class Scorer:
    """Scores users against items; a changed catalog makes another scorer.

    Immutable but for caches; thread-safe because each entry is written once.
    """

    index: Int8Index
    """The bundle's items."""

    encoder: TextEncoder
    """The bundle's encoder of texts."""

    user_model: UserModel
    """The bundle's recurrence from behaviour to user vector."""

    context_features: FeatureMap | None
    """How declared context features become numbers, in bundles that have them."""

    overlay: CatalogOverlay
    """What the device added and removed."""

    newcomers: Rows
    """The rows of newcomers that were not removed, ascending."""

    all_items: Eligibility
    """What may be shown without rules: all but replaced and removed items."""

    space: str
    """Names the space of user states and vectors: those of another space mean nothing here."""

    def __init__(
        self,
        bundle: Bundle,
        parts: _BundleParts | None = None,
        overlay: CatalogOverlay | None = None,
        attributes: CatalogAttributes | None = None,
    ) -> None:
        sizes = bundle.manifest.sizes
        files = bundle.manifest.files
        self._parts = parts or _make_parts(bundle)
        self.bundle = bundle
        self.index = self._parts.index
        self._partial = PartialIndexes(self.index)
        self.encoder = self._parts.encoder
        self.user_model = self._parts.user_model
        self.context_features = self._parts.context_features
        self.overlay = overlay or CatalogOverlay((), (), empty_index(sizes.dim), None)
        # States and vectors mean the same only under the same policy and items.
        self.space = (
            files["policy.safetensors"].sha256[:16] + files["items.safetensors"].sha256[:16]
        )
        added = {record["id"]: sizes.items + i for i, record in enumerate(self.overlay.added)}
        self._lookup = RowLookup(bundle, added)
        self._removed = {record["id"] for record in self.overlay.records if "text" not in record}
        self.newcomers = self._newcomer_rows()
        is_newcomer = np.zeros(sizes.items + len(self.overlay.added) + 1, np.bool_)
        is_newcomer[self.newcomers] = True
        masks = self.overlay.mask, None
        self.all_items = Eligibility(sizes.items, masks, self.newcomers, is_newcomer)
        self._attributes = attributes or CatalogAttributes(
            self._parts.columns, sizes.items, self.overlay.added, self.overlay.changed
        )
        self._rules = RuleCache(self.all_items, self._attributes)
        self._changed_groups: dict[str, ChangedGroups] = {}
        self._read_item = lru_cache(maxsize=CACHED_ITEMS)(partial(read_item, bundle, self.overlay))

    def find(self, item: str) -> int | None:
        """Return the row of an item id, or None: it is in neither the bundle nor the overlay."""
        return self._lookup.find(item)

    def is_removed(self, item: str) -> bool:
        """Return whether the app removed this item from the device."""
        return item in self._removed

    def item(self, row: int) -> CatalogItem:
        """Return the catalog entry of a row; its attributes are shared, so do not change them."""
        return self._read_item(row)

    def vector(self, row: int) -> Vector:
        """Return the vector [d] of a row: its int8 row times its scale."""
        n = self.bundle.manifest.sizes.items
        if row < n:
            return self.index.rows[row] * self.index.scale[row]
        added = self.overlay.index
        return added.rows[row - n] * added.scale[row - n]

    def codes(self, rows: Rows) -> NDArray[np.float64]:
        """Return the int8 rows [e, d] of rows int64 [e] as doubles: directions, without scales."""
        n = self.bundle.manifest.sizes.items
        is_added = rows >= n
        codes = np.empty((len(rows), self.index.rows.shape[1]))
        codes[~is_added] = self.index.rows[rows[~is_added]]
        codes[is_added] = self.overlay.index.rows[rows[is_added] - n]
        return codes

    def score(self, user: Vector, row: int) -> float:
        """Return the score of a row for a user vector [d], as `rank` does."""
        n = self.bundle.manifest.sizes.items
        return self.index.score(user, row) if row < n else self.overlay.index.score(user, row - n)

    def scores(self, user: Vector, rows: Rows) -> Scores:
        """Return the scores float64 [e] of rows int64 [e] for a user vector [d], as `rank` does."""
        n = self.bundle.manifest.sizes.items
        is_added = rows >= n
        if not is_added.any():
            return self.index.scores(user, rows)
        scores = np.empty(len(rows))
        scores[~is_added] = self.index.scores(user, rows[~is_added])
        scores[is_added] = self.overlay.index.scores(user, rows[is_added] - n)
        return scores

    def eligible(
        self,
        rule: Rule | None,
        listed: tuple[str, ...] | None,
        boosts: tuple[Boost, ...] = NO_BOOSTS,
    ) -> Eligibility:
        """Return what may be shown under a rule, and of listed ids alone, if they are given, with
        what boosts add to scores.

        Raises as `CatalogAttributes.matches` and `row_boosts` do. The rows of rules are kept.
        """
        rows = None if listed is None else self.rows_of(listed)
        return self._rules.eligible(rule, rows, boosts)

    # Six parameters: what one ranking depends on.
    def rank(
        self,
        user: Vector,
        k: int,
        excluded: Rows = NO_ROWS,
        at_most: Mapping[str, int] = NO_CAPS,
        eligible: Eligibility | None = None,
        taken: Rows = NO_ROWS,
    ) -> SearchResult:
        """Return the k best eligible rows for a user vector [d], without `excluded` int64 [e].

        `at_most` limits, by attribute, how many items of one value may be among them and the rows
        `taken`, which have to be excluded ones.
        """
        eligible = eligible or self.all_items
        if eligible.boosts is not None:
            search = partial(self._search_parts, user, eligible.parts)
        elif at_most:
            search = partial(self.search, user, masks=eligible.masks, rows=eligible.rows)
        else:
            return self.search(user, k, excluded, eligible.masks, eligible.rows)
        if not at_most:
            return search(k, excluded)
        return apply_caps(search, self.caps(at_most), k, excluded, taken)

    # Seven parameters: those of `rank`, and its pool.
    def newcomers_outside(
        self,
        user: Vector,
        k: int,
        excluded: Rows,
        at_most: Mapping[str, int],
        pool: Rows,
        eligible: Eligibility | None = None,
    ) -> Newcomers:
        """Return the eligible newcomers that are neither in a pool of k items nor excluded.

        Under caps only the k best for a user vector [d] of which no group, together with the
        pool, has more than its cap: then no slate drawn from both can exceed one.
        """
        eligible = eligible or self.all_items
        if not at_most:
            return outside(eligible.newcomers, eligible.is_newcomer, pool, excluded)
        rows = None if eligible.rows is None else eligible.newcomers
        search = partial(self.search, user, masks=eligible.newcomer_masks, rows=rows)
        return Newcomers(apply_caps(search, self.caps(at_most), k, excluded, pool).rows)

    def _newcomer_rows(self) -> Rows:
        listed = self.bundle.items.newcomers.astype(np.int64)
        n = self.bundle.manifest.sizes.items
        replaced = [self.bundle.find(record["id"]) for record in self.overlay.added]
        rows = np.array([UNKNOWN if row is None else row for row in replaced], np.int64)
        # A changed text makes no newcomer of an item that the fleet knows.
        is_newcomer = (rows == UNKNOWN) | np.isin(rows, listed)
        mask = self.overlay.mask
        visible = listed if mask is None else listed[~mask.hidden[listed]]
        return np.concatenate([visible, n + np.flatnonzero(is_newcomer)])

    def rows_of(self, items: tuple[str, ...]) -> Rows:
        """Return the rows of ids, int64, `UNKNOWN` for those that have none; not to be changed."""
        return self._lookup.rows_of(items)

    # Six parameters: the caller, what it wants, and what it may not get.
    def search(
        self,
        user: Vector,
        k: int,
        excluded: Rows,
        masks: Masks | None = None,
        rows: Rows | None = None,
    ) -> SearchResult:
        """Return the k best rows for a user vector [d], without the excluded rows int64 [e].

        `masks` hide rows of the bundle and of the added items, by default replaced and removed
        ones. Where `rows` int64 are given, only these are ranked, and no mask is looked at.
        """
        if rows is not None:
            return self._best_of(user, k, rows[~np.isin(rows, excluded)])
        mask, added_mask = masks or self.all_items.masks
        best = self._partial.top(user, k, excluded, mask)
        if not self.overlay.added:
            return best
        n = self.bundle.manifest.sizes.items
        added = self.overlay.index.top(user, k, excluded - n, added_mask)
        return merged(best, added, n, k)

    def _search_parts(
        self, user: Vector, parts: tuple[Part, ...], k: int, excluded: Rows
    ) -> SearchResult:
        """Return the k best rows of all parts, their boosts included (`best_boosted`)."""
        found = [self.search(user, k, excluded, part.masks, part.rows) for part in parts]
        return best_boosted(found, [part.boost for part in parts], k)

    def _best_of(self, user: Vector, k: int, rows: Rows) -> SearchResult:
        """Return the k best of some rows, with the bits and the order of a search of all."""
        scores = self.scores(user, rows)
        order = np.lexsort((rows, -scores))[:k]
        return SearchResult(rows[order], scores[order], len(rows))

    def caps(self, at_most: Mapping[str, int]) -> list[Cap]:
        """Return the caps of a request, which count items of the bundle and of the device."""
        return [self._cap(attribute, limit) for attribute, limit in at_most.items()]

    def _cap(self, attribute: str, at_most: int) -> Cap:
        """Return a cap on the items of the bundle and of the device together."""
        n = self.bundle.manifest.sizes.items
        bundled: Groups | ChangedGroups = self.groups(attribute)
        if self.overlay.changed:
            if attribute not in self._changed_groups:
                self._changed_groups[attribute] = ChangedGroups(
                    self.groups(attribute), attribute, self.overlay.changed
                )
            bundled = self._changed_groups[attribute]
        if not self.overlay.added:
            return Cap(bundled.groups_of, bundled.rows_of, at_most)
        added = Groups([record.get(attribute) for record in self.overlay.added], n)

        def groups_of(row: int) -> list[Hashable]:
            return bundled.groups_of(row) if row < n else added.groups_of(row)

        def rows_of(group: Hashable) -> Rows:
            return np.concatenate([bundled.rows_of(group), added.rows_of(group)])

        return Cap(groups_of, rows_of, at_most)

    def groups(self, attribute: str) -> Groups:
        """Return the bundle's groups by an attribute; the first call reads the whole catalog."""
        groups = self._parts.groups
        if attribute not in groups:
            groups[attribute] = Groups(self.bundle.values(attribute))
        return groups[attribute]

    def project(self, text: str) -> Vector:
        """Return the vector [d] that a new item gets from its text."""
        return self.bundle.policy["item.project"] @ self.encoder.encode_item(text)

    def with_overlay(self, records: Iterable[Mapping[str, Any]]) -> Scorer:
        """Return a scorer that also has these records; the last record of an id counts."""
        changes = {record["id"]: record for record in records}
        by_id = {record["id"]: record for record in self.overlay.records} | changes
        if not by_id:
            return self
        sizes = self.bundle.manifest.sizes
        # What the app changed of items that were added before stays.
        current = {record["id"]: record for record in self.overlay.added}
        added = tuple(
            record if id in changes else current.get(id, record)
            for id, record in by_id.items()
            if "text" in record
        )
        kept = {id: row for row, id in enumerate(current) if id not in changes}
        index = index_of(self.bundle, self.encoder, added, kept, self.overlay.index)
        hidden = np.zeros(sizes.items, np.bool_)
        hidden[[row for row in map(self.bundle.find, by_id) if row is not None]] = True
        changed = self.overlay.changed
        overlay = CatalogOverlay(tuple(by_id.values()), added, index, RowMask(hidden), changed)
        return Scorer(self.bundle, self._parts, overlay)

    def check_changes(self, changes: Changes) -> None:
        """Raise `TypeError` for a changed value of another type than its attribute's."""
        self._attributes.check(changes)

    def check_added(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Raise `TypeError` for an added value of another type than its attribute's.

        A bundle without columns would have to read its whole catalog for that: any value passes.
        """
        if self.bundle.columns is not None:
            self._attributes.check({record["id"]: record for record in records}, "items")

    def with_changes(self, changes: Changes) -> Scorer:
        """Return a scorer of the same items with changed attributes; unknown ids are ignored."""
        n = self.bundle.manifest.sizes.items
        changes_of: dict[int, Mapping[str, Any]] = {}
        # `records` stay as they were added: their vectors do.
        added = {record["id"]: record for record in self.overlay.added}
        rows = self._lookup.rows_once(tuple(changes)).tolist()
        for row, (item, attributes) in zip(rows, changes.items(), strict=True):
            if row >= n:
                added[item] = {**added[item], **attributes}
            elif row >= 0:
                changes_of[row] = attributes
        changed = self.overlay.changed.updated(changes_of)
        overlay = replace(self.overlay, added=tuple(added.values()), changed=changed)
        attributes_after = self._attributes.changed_by(overlay.added, changed, changes_of)
        scorer = Scorer(self.bundle, self._parts, overlay, attributes_after)
        scorer._lookup = self._lookup  # no row has changed
        return scorer

    def warm_up(self, attributes: Iterable[str] = ()) -> None:
        """Load what the first recommendation would wait for, with caps and rules on these
        attributes."""
        for attribute in attributes:
            self.groups(attribute)
            self._attributes.load(attribute)
        self.rank(self.user_model.user_vector(self.user_model.initial_state()), 1)


def _make_parts(bundle: Bundle) -> _BundleParts:
    items = bundle.items
    sizes = bundle.manifest.sizes
    try:
        index = Int8Index(items.rows, items.scale, items.bias)
    except ValueError as error:
        raise BundleError(f"items.safetensors: {error}") from error
    encoder = TextEncoder(
        bundle.folder,
        sizes.text,
        sizes.max_tokens,
        bundle.manifest.prefixes,
        TextDomain.of(bundle.policy),
    )
    contexts = bundle.context_features
    return _BundleParts(
        index,
        encoder,
        UserModel(bundle.policy, bundle.manifest.kinds),
        {},
        BundleColumns(bundle),
        None if contexts is None else FeatureMap.of(contexts),
    )
