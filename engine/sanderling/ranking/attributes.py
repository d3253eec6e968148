"""Attributes of items as typed columns, which rules compare as whole arrays.

Types: numbers, times (ISO 8601 text), booleans, and categories: texts, lists, and mixtures. A row
without the attribute, or with a value that does not fit its type, meets no comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.columns import AttributeColumns, AttributeType, CategoryArrays
from sanderling.errors import shown
from sanderling.ranking.rules import ORDERING, Bools, Comparison

NUMBER = "number"
TIME = "time"
BOOLEAN = "boolean"
CATEGORIES = "categories"

EXPECTED = {
    NUMBER: "a number",
    TIME: "a time, as ISO 8601 text or in seconds since 1970",
    BOOLEAN: "true or false",
}
TYPE_NAMES: dict[type, str] = {str: "texts", int: "numbers", float: "numbers", bool: "booleans"}

PLAIN_TYPES: dict[str, set[type]] = {NUMBER: {int, float}, BOOLEAN: {bool}}
"""By type of attribute, types of which each value is a number to numpy, as None is NaN."""

MAX_WORDS = 1000  # different texts that a small catalog's attribute may have and be a category

# Texts such as "20240501" are more often part numbers than dates, so that hyphens are needed.
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")


class ScalarColumn:
    """Numbers, times (seconds since 1970) or booleans (0 and 1), one a row, NaN where missing."""

    def __init__(self, kind: str, numbers: NDArray[np.float64]) -> None:
        self.kind = kind
        self.numbers = numbers

    def patched(self, rows: Sequence[int], values: Sequence[Any]) -> ScalarColumn:
        """Return the column with other values in some rows."""
        numbers = self.numbers.copy()
        numbers[rows] = _as_numbers(values, self.kind)
        return ScalarColumn(self.kind, numbers)

    def fits_types(self, types: set[type]) -> bool:
        """Return whether all values of these types fit the column; False where values decide."""
        return types <= PLAIN_TYPES.get(self.kind, set()) | {NoneType}

    def fault(self, value: Any) -> str | None:
        """Return what is expected in place of a value that does not fit the column."""
        return EXPECTED[self.kind] if math.isnan(_as_number(value, self.kind)) else None

    has_types = True

    def check(self, comparison: Comparison, place: str) -> None:
        """Raise `TypeError` for an operand or operator of another type; `place` names both."""
        operator = comparison.operator
        if operator == "exists":
            return
        if operator in ORDERING and self.kind == BOOLEAN:
            raise TypeError(f"{place}: {operator}: expected numbers or times, found booleans")
        for operand in comparison.operands:
            if math.isnan(_as_number(operand, self.kind)):
                raise TypeError(
                    f"{place}: {operator}: expected {EXPECTED[self.kind]}, found {shown(operand)}"
                )

    def compare(self, comparison: Comparison) -> Bools:
        """Return which rows meet a checked comparison, bool [n]."""
        operator = comparison.operator
        if operator == "exists":
            is_present: Bools = ~np.isnan(self.numbers)
            return is_present == comparison.operand
        wanted = [_as_number(operand, self.kind) for operand in comparison.operands]
        if operator in _ORDERINGS:
            return _ORDERINGS[operator](self.numbers, wanted[0])
        distinct = sorted(set(wanted))
        if operator == "all" and len(distinct) > 1:
            return np.zeros(len(self.numbers), np.bool_)
        return np.isin(self.numbers, np.array(distinct, np.float64))


class CategoryColumn:
    """Texts, or several values a row: entry i says that the row `rows[i]` has the value of code
    `codes[i]`.

    `is_present` bool [n] says which rows have the attribute at all.
    """

    kind = CATEGORIES

    def __init__(
        self,
        rows: NDArray[np.int32],
        codes: NDArray[np.int32],
        code_of: dict[Any, int],
        is_present: Bools,
    ) -> None:
        self._rows = rows
        self._codes = codes
        self._code_of = code_of
        self._is_present = is_present
        self._types = {TYPE_NAMES[key[1]] for key in code_of}
        self.has_types = bool(self._types)

    def arrays(self) -> CategoryArrays:
        """Return the entries as a bundle's file holds them."""
        vocabulary = [key[0] for key in self._code_of]
        present = self._is_present.astype(np.uint8)
        return CategoryArrays(self._rows, self._codes, present, vocabulary)

    def patched(self, rows: Sequence[int], values: Sequence[Any]) -> CategoryColumn:
        """Return the column with other values in some rows."""
        entries = _Entries(dict(self._code_of))
        for value in values:
            entries.add(value)
        changed = np.array(rows, np.int32)
        is_changed = np.zeros(len(self._is_present), np.bool_)
        is_changed[changed] = True
        is_kept = ~is_changed[self._rows]
        is_present = self._is_present.copy()
        is_present[changed] = entries.is_present
        return CategoryColumn(
            np.concatenate([self._rows[is_kept], changed[np.array(entries.rows, np.int64)]]),
            np.concatenate([self._codes[is_kept], np.array(entries.codes, np.int32)]),
            entries.code_of,
            is_present,
        )

    def fits_types(self, types: set[type]) -> bool:
        """Return whether all values of these types fit the column; False where values decide."""
        plain = types - {NoneType}
        return plain <= TYPE_NAMES.keys() and {TYPE_NAMES[each] for each in plain} <= self._types

    def fault(self, value: Any) -> str | None:
        """Return what is expected in place of a value that does not fit the column."""
        found = {TYPE_NAMES[type(element)] for element in _elements(value)}
        return None if not self._types or found <= self._types else self._holds

    def check(self, comparison: Comparison, place: str) -> None:
        """Raise `TypeError` for an operand or operator of another type; `place` names both."""
        operator = comparison.operator
        if operator == "exists":
            return
        if operator in ORDERING:
            raise TypeError(
                f"{place}: {operator}: expected an attribute of numbers or times, found one that"
                f" holds {self._holds}; use eq, in, any or all"
            )
        for operand in comparison.operands:
            if self._types and TYPE_NAMES[type(operand)] not in self._types:
                raise TypeError(
                    f"{place}: {operator}: expected {self._holds}, found {shown(operand)}"
                )

    def compare(self, comparison: Comparison) -> Bools:
        """Return which rows meet a checked comparison, bool [n]."""
        if comparison.operator == "exists":
            return self._is_present == comparison.operand
        operands = comparison.operands
        if comparison.operator != "all":
            return self._rows_with(operands)
        found = self._rows_with(operands[:1])
        for operand in operands[1:]:
            found &= self._rows_with([operand])
        return found

    @property
    def _holds(self) -> str:
        return " and ".join(sorted(self._types)) or "no values"

    def _rows_with(self, operands: Iterable[Any]) -> Bools:
        found = np.zeros(len(self._is_present), np.bool_)
        codes = [code for code in map(self._code_of.get, map(key_of, operands)) if code is not None]
        if len(codes) == 1:
            found[self._rows[self._codes == codes[0]]] = True
        elif codes:
            is_wanted = np.zeros(len(self._code_of), np.bool_)
            is_wanted[codes] = True
            found[self._rows[is_wanted[self._codes]]] = True
        return found


Column = ScalarColumn | CategoryColumn


def kind_of(values: Iterable[Any]) -> str | None:
    """Return the type of an attribute, given its values; None where no row has one."""
    present = [value for value in values if value is not None]
    types = set(map(type, present))
    if not types:
        return None
    if types == {bool}:
        return BOOLEAN
    if types <= {int, float}:
        return NUMBER
    if types == {str} and all(_is_time(value) for value in present):
        return TIME
    return CATEGORIES


def make_column(values: Iterable[Any], kind: str) -> Column:
    """Return the column of an attribute, given its value in each row, None where it is missing."""
    if kind != CATEGORIES:
        return ScalarColumn(kind, _as_numbers(list(values), kind))
    entries = _Entries({})
    for value in values:
        entries.add(value)
    return CategoryColumn(
        np.array(entries.rows, np.int32),
        np.array(entries.codes, np.int32),
        entries.code_of,
        np.array(entries.is_present, np.bool_),
    )


def empty_column(kind: str, rows: int) -> Column:
    """Return the column of an attribute that none of some rows has."""
    if kind != CATEGORIES:
        return ScalarColumn(kind, np.full(rows, np.nan))
    none = np.empty(0, np.int32)
    return CategoryColumn(none, none, {}, np.zeros(rows, np.bool_))


def mapped_column(columns: AttributeColumns, attribute: str) -> Column:
    """Return a column of a bundle's file, any but a text; raise `BundleError` where it is wrong."""
    kind = columns.types[attribute]
    if kind not in ("category", "categories"):
        return ScalarColumn(kind, columns.numbers(attribute))
    arrays = columns.categories(attribute)
    code_of = {key_of(value): code for code, value in enumerate(arrays.vocabulary)}
    return CategoryColumn(arrays.rows, arrays.codes, code_of, arrays.present.view(np.bool_))


def text_fault(value: Any) -> str | None:
    """Return what is expected in place of a value that is no text, or list of texts."""
    elements = value if isinstance(value, list) else [value]
    return None if all(isinstance(each, str) for each in elements) else "texts"


def stored_column(column: Column) -> NDArray[np.float64] | CategoryArrays:
    """Return what a bundle's file holds of a column."""
    return column.numbers if isinstance(column, ScalarColumn) else column.arrays()


def type_of(values: Sequence[Any], name: str) -> AttributeType | None:
    """Return the type by which an attribute is stored, given all its values; None without one.

    Texts are those of which most are different, as no rule asks for them: titles, descriptions.
    """
    kind = kind_of(values)
    if kind != CATEGORIES:
        return cast("AttributeType | None", kind)
    if any(isinstance(value, list) for value in values):
        return "categories"
    different = {value for value in values if isinstance(value, str)}
    is_text = name == "title" or len(different) > max(MAX_WORDS, len(values) // 2)
    return "text" if is_text else "category"


class _Entries:
    """The entries of a category column while it is made."""

    def __init__(self, code_of: dict[Any, int]) -> None:
        self.code_of = code_of
        self.rows: list[int] = []
        self.codes: list[int] = []
        self.is_present: list[bool] = []

    def add(self, value: Any) -> None:
        """Add the values of the next row."""
        row = len(self.is_present)
        self.is_present.append(value is not None and value != [])
        for key in dict.fromkeys(map(key_of, _elements(value))):
            self.rows.append(row)
            self.codes.append(self.code_of.setdefault(key, len(self.code_of)))


def _elements(value: Any) -> list[Any]:
    """Return the texts, numbers and booleans of a value; anything else is none."""
    elements = value if isinstance(value, list) else [value]
    return [element for element in elements if isinstance(element, str | int | float)]


def key_of(value: Any) -> tuple[Any, type]:
    """Return what tells values apart: `True` is not 1, though Python holds them equal."""
    return value, type(value) if isinstance(value, str | bool) else float


def _as_numbers(values: Sequence[Any], kind: str) -> NDArray[np.float64]:
    """Return values as the numbers that a scalar column holds, NaN for those of another type."""
    if set(map(type, values)) <= PLAIN_TYPES.get(kind, set()) | {NoneType}:
        try:
            return np.array(values, np.float64)
        except OverflowError:  # an int beyond what a float64 holds
            pass
    return np.array([_as_number(value, kind) for value in values], np.float64)


def _as_number(value: Any, kind: str) -> float:
    """Return a value as the number that a scalar column holds, NaN for one of another type."""
    if isinstance(value, bool):
        return float(value) if kind == BOOLEAN else math.nan
    if kind == BOOLEAN:
        return math.nan
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # an int beyond what a float64 holds
            return math.inf if value > 0 else -math.inf
    return _seconds(value) if kind == TIME and isinstance(value, str) else math.nan


def _is_time(value: str) -> bool:
    return not math.isnan(_seconds(value))


def _seconds(text: str) -> float:
    """Return an ISO 8601 text in seconds since 1970, without an offset UTC; NaN for other text."""
    if not ISO_TIME.fullmatch(text):
        return math.nan
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_ORDERINGS = {
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
