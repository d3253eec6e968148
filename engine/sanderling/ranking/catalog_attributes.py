"""The attributes of a bundle's items and of those that the device added, compared with rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from sanderling.bundle.columns import AttributeType
from sanderling.bundle.reader import Bundle
from sanderling.errors import shown
from sanderling.ranking import rules
from sanderling.ranking.attributes import (
    CATEGORIES,
    Column,
    empty_column,
    kind_of,
    make_column,
    mapped_column,
    text_fault,
)
from sanderling.ranking.features import vector_fault
from sanderling.ranking.row_changes import NOTHING_CHANGED
from sanderling.ranking.rules import Bools, Comparison, Rule

ChangedRows = Mapping[int, Mapping[str, Any]]
"""The attributes that the app changed of the bundle's items, by row; None for one taken away."""

NOT_ATTRIBUTES = {"id", "text", "added_ms"}


class BundleColumns:
    """The attributes of a bundle's items as columns, each loaded on its first use: from the file of
    columns, or, for texts and in bundles without that file, from the whole catalog.

    Thread-safe because each entry is written once.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._columns: dict[str, Column | None] = {}
        self._names: frozenset[str] | None = None

    def get(self, attribute: str) -> Column | None:
        """Return an attribute's column, None where no item has it."""
        if attribute not in self._columns:
            self._columns[attribute] = self._load(attribute)
        return self._columns[attribute]

    def _load(self, attribute: str) -> Column | None:
        stored = self._bundle.columns
        if stored is not None:
            if attribute not in stored.types:
                return None
            if stored.types[attribute] == "vector":
                return None
            if stored.types[attribute] != "text":
                return mapped_column(stored, attribute)
        values = list(self._bundle.values(attribute))
        kind = kind_of(values)
        return make_column(values, kind) if kind else None

    def stored_type(self, attribute: str) -> AttributeType | None:
        """Return an attribute's type in the file of columns, None where that does not have it."""
        stored = self._bundle.columns
        return None if stored is None else stored.types.get(attribute)

    def vector_fault(self, attribute: str) -> Callable[[Any], str | None]:
        """Return what says what is wrong with a vector for an attribute of that type."""
        found = self._bundle.item_features
        features = found.schema.features if found else ()
        width = {feature.name: feature.width for feature in features}.get(attribute)
        return partial(vector_fault, width=width)

    def names(self) -> frozenset[str]:
        """Return the names of all attributes; the first call reads the whole catalog."""
        if self._bundle.columns is not None:
            return frozenset(self._bundle.columns.types)
        if self._names is None:
            rows = range(self._bundle.manifest.sizes.items)
            self._names = frozenset().union(*map(self._bundle.record, rows))
        return self._names


class _Columns(NamedTuple):
    """One attribute of the bundle's items and of the added ones."""

    bundled: Column
    added: Column

    @property
    def typed(self) -> Column:
        """That of the two which says what fits the attribute."""
        return self.bundled if self.bundled.has_types else self.added


class CatalogAttributes:
    """The attributes of a catalog, the bundle's and the device's; a changed one makes another.

    `added` are the records of added items, `changed` the attributes that the app changed of the
    bundle's items, by row.
    """

    def __init__(
        self,
        bundle_columns: BundleColumns,
        items: int,
        added: Sequence[Mapping[str, Any]],
        changed: ChangedRows = NOTHING_CHANGED,
    ) -> None:
        self._bundle_columns = bundle_columns
        self._items = items
        self._added = added
        self._changed = changed
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
            self._get(attribute)

    def check(self, items: Mapping[str, Mapping[str, Any]], argument: str = "changes") -> None:
        """Raise `TypeError` for a value of another type than its attribute's, given the attributes
        of items by id; the error names the argument that they are from, and the first such item."""
        names = {name for attributes in items.values() for name in attributes}
        for name in sorted(names - NOT_ATTRIBUTES):
            stored = self._bundle_columns.stored_type(name)
            fault: Callable[[Any], str | None] = text_fault
            if stored == "vector":
                fault = self._bundle_columns.vector_fault(name)
            elif stored != "text":
                if self._kind(name) is None:
                    continue
                column = self._get(name).typed
                if column.fits_types({type(each.get(name)) for each in items.values()}):
                    continue
                fault = column.fault
            for item, attributes in items.items():
                value = attributes.get(name)
                expected = None if value is None else fault(value)
                if expected is not None:
                    raise TypeError(
                        f"{argument}: {item:.80}: {name:.80}: expected {expected}, found"
                        f" {shown(value)}"
                    )

    def changed_by(
        self, added: Sequence[Mapping[str, Any]], changed: ChangedRows, rows: Iterable[int]
    ) -> CatalogAttributes:
        """Return the attributes after more changes, whose rows are given: loaded columns stay."""
        other = CatalogAttributes(self._bundle_columns, self._items, added, changed)
        patch = {row: changed[row] for row in rows}
        for name, columns in self._columns.items():
            bundled = _patched(columns.bundled, name, patch)
            other._columns[name] = _Columns(bundled, other._added_column(name, bundled.kind))
        return other

    def _matches(self, rule: Rule, name: str, rows: int, *, is_added: bool) -> Bools:
        def compare(comparison: Comparison) -> Bools:
            place = f"{name}: {comparison.attribute:.80}"
            if self._kind(comparison.attribute) is None:
                raise ValueError(f"{place}: {self._unknown(comparison.attribute)}")
            columns = self._get(comparison.attribute)
            columns.typed.check(comparison, place)
            return (columns.added if is_added else columns.bundled).compare(comparison)

        return rules.matches(rule.condition, compare, rows)

    def _get(self, attribute: str) -> _Columns:
        """Return the columns of an attribute that some item has."""
        if attribute not in self._columns:
            kind = self._kind(attribute) or CATEGORIES
            column = self._bundle_columns.get(attribute)
            bundled = _patched(
                empty_column(kind, self._items) if column is None else column,
                attribute,
                self._changed,
            )
            self._columns[attribute] = _Columns(bundled, self._added_column(attribute, kind))
        return self._columns[attribute]

    def _added_column(self, attribute: str, kind: str) -> Column:
        return make_column([record.get(attribute) for record in self._added], kind)

    def _kind(self, attribute: str) -> str | None:
        """Return an attribute's type: that in the bundle, else that of the device's own values;
        None where no item has it."""
        if attribute in self._columns:
            return self._columns[attribute].bundled.kind
        bundled = self._bundle_columns.get(attribute)
        if bundled is not None:
            return bundled.kind
        if attribute in NOT_ATTRIBUTES:
            return None
        of_device = [*self._added, *self._changed.values()]
        kind = kind_of(record.get(attribute) for record in of_device)
        # What the app took away from the last item is still no typing error.
        is_known = any(attribute in record for record in of_device)
        return kind or (CATEGORIES if is_known else None)

    def _unknown(self, attribute: str) -> str:
        if self._bundle_columns.stored_type(attribute) == "vector":
            return "expected an attribute that can be compared, found one of vectors"
        names = self._bundle_columns.names().union(*self._added, *self._changed.values())
        near = get_close_matches(attribute, names - NOT_ATTRIBUTES, n=3)
        near = near or sorted(names - NOT_ATTRIBUTES)[:5]
        return (
            f"expected an attribute that an item has, found {shown(attribute)};"
            f" near: {', '.join(map(repr, near))}"
        )


def _patched(column: Column, attribute: str, changed: ChangedRows) -> Column:
    """Return a column of the bundle's items with the values that the app changed, if any."""
    values = {row: record[attribute] for row, record in changed.items() if attribute in record}
    return column.patched(list(values), list(values.values())) if values else column
