"""What requests with rules and boosts may show of one catalog, kept by rule."""

from __future__ import annotations

from functools import lru_cache, partial

from sanderling.ranking.boosts import Boost, row_boosts
from sanderling.ranking.catalog_attributes import CatalogAttributes
from sanderling.ranking.eligibility import Eligibility
from sanderling.ranking.rules import Rule
from sanderling.ranking.search_types import Rows

CACHED_RULES = 256  # whose rows are kept, or as many as fit into
CACHED_BYTES = 16_000_000  # where each takes 2 bytes and an eighth a row
BYTES_OF_BOOSTS = 4
"""Boosts take as much as so many rules do, unless they overlap in many ways."""


class RuleCache:
    """The eligible items of one catalog by rule and boosts. Thread-safe."""

    def __init__(self, all_items: Eligibility, attributes: CatalogAttributes) -> None:
        rows = len(all_items.is_newcomer)
        size = max(4, min(CACHED_RULES, CACHED_BYTES // (2 * rows + rows // 8)))
        self._all_items = all_items
        self._attributes = attributes
        # Of no method, so that a scorer that is replaced is freed at once.
        self._confined = lru_cache(maxsize=size)(partial(_confined, all_items, attributes))
        self._boosted = lru_cache(maxsize=size // BYTES_OF_BOOSTS)(partial(_boosted, attributes))

    def eligible(
        self, rule: Rule | None, listed: Rows | None, boosts: tuple[Boost, ...]
    ) -> Eligibility:
        """Return what may be shown under a rule, and of listed rows int64 alone, if they are given,
        with what boosts add to scores.

        Raises as `CatalogAttributes.matches` and `row_boosts` do.
        """
        eligible = self._all_items if rule is None else self._confined(rule)
        if listed is None:
            return self._boosted(eligible, boosts) if boosts else eligible
        eligible = eligible.among(listed)
        return eligible.boosted(row_boosts(self._attributes, boosts)) if boosts else eligible


def _confined(all_items: Eligibility, attributes: CatalogAttributes, rule: Rule) -> Eligibility:
    return all_items.confined(attributes.matches(rule))


def _boosted(
    attributes: CatalogAttributes, eligible: Eligibility, boosts: tuple[Boost, ...]
) -> Eligibility:
    return eligible.boosted(row_boosts(attributes, boosts))
