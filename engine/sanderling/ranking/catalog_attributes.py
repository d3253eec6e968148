"""The attributes of a bundle's items and of those that the device added, compared with rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from sanderling.bundle.reader import Bundle
from sanderling.errors import shown
from sanderling.ranking import rules
from sanderling.ranking.attributes import Column, kind_of, make_column
from sanderling.ranking.rules import Bools, Comparison, Rule

NOT_ATTRIBUTES = {"id", "text", "added_ms"}


class BundleColumns:
    """The attributes of a bundle's items as columns, each made from the catalog on its first use.

    Thread-safe because each entry is written once.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._columns: dict[str, Column | None] = {}
        self._names: frozenset[str] | None = None

    def get(self, attribute: str) -> Column | None:
        """Return an attribute's column, None where no item has it."""
        if attribute not in self._columns:
            values = list(self._bundle.values(attribute))
            kind = kind_of(values)
            self._columns[attribute] = make_column(values, kind) if kind else None
        return self._columns[attribute]

    def names(self) -> frozenset[str]:
        """Return the names of all attributes; the first call reads the whole catalog."""
        if self._names is None:
            rows = range(self._bundle.manifest.sizes.items)
            self._names = frozenset().union(*map(self._bundle.record, rows))
        return self._names


class _Columns(NamedTuple):
    """One attribute of the bundle's items and of the added ones."""

    bundled: Column
    added: Column

    typed: Column
    """That of the two which says what fits the attribute."""


class CatalogAttributes:
    """The attributes of a catalog, the bundle's and the device's; a changed one makes another."""

    def __init__(
        self, bundle_columns: BundleColumns, items: int, added: Iterable[Mapping[str, Any]]
    ) -> None:
        self._bundle_columns = bundle_columns
        self._items = items
        self._added = tuple(added)
        self._columns: dict[str, _Columns] = {}

    def matches(self, rule: Rule, name: str = "where") -> tuple[Bools, Bools]:
        """Return which items of the bundle and which added ones a rule holds for, bool [n] and [a].

        Raises `ValueError` for an attribute that no item has, `TypeError` for an operand of another
        type than the attribute's; both name the argument.
        """
        return (
            self._matches(rule, name, self._items, is_added=False),
            self._matches(rule, name, len(self._added), is_added=True),
        )

    def load(self, attribute: str) -> None:
        """Make an attribute's columns now, if any item has it."""
        if self._kind(attribute) is not None:
            self._get(attribute, attribute)

    def _matches(self, rule: Rule, name: str, rows: int, *, is_added: bool) -> Bools:
        def compare(comparison: Comparison) -> Bools:
            place = f"{name}: {comparison.attribute:.80}"
            columns = self._get(comparison.attribute, place)
            columns.typed.check(comparison, place)
            return (columns.added if is_added else columns.bundled).compare(comparison)

        return rules.matches(rule.condition, compare, rows)

    def _get(self, attribute: str, place: str) -> _Columns:
        if attribute in self._columns:
            return self._columns[attribute]
        kind = self._kind(attribute)
        if kind is None:
            raise ValueError(f"{place}: {self._unknown(attribute)}")
        bundled = self._bundle_columns.get(attribute)
        added = make_column([record.get(attribute) for record in self._added], kind)
        columns = (
            _Columns(make_column([None] * self._items, kind), added, added)
            if bundled is None
            else _Columns(bundled, added, bundled)
        )
        self._columns[attribute] = columns
        return self._columns[attribute]

    def _kind(self, attribute: str) -> str | None:
        """Return an attribute's type: that in the bundle, else that of the device's own values."""
        bundled = self._bundle_columns.get(attribute)
        if bundled is not None:
            return bundled.kind
        if attribute in NOT_ATTRIBUTES:
            return None
        return kind_of(record.get(attribute) for record in self._added)

    def _unknown(self, attribute: str) -> str:
        names = self._bundle_columns.names().union(*self._added) - NOT_ATTRIBUTES
        near = get_close_matches(attribute, names, n=3) or sorted(names)[:5]
        return (
            f"expected an attribute that an item has, found {shown(attribute)};"
            f" near: {', '.join(map(repr, near))}"
        )
