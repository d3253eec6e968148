"""The attributes of an items table: what type each one has, and its values as JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from sanderling.bundle.columns import AttributeType
from sanderling.bundle.features import CATEGORIES
from sanderling.errors import TableError
from sanderling.ranking.attributes import TYPE_NAMES, kind_of, type_of
from sanderling.ranking.item_text import is_empty
from sanderling.tables import cells
from sanderling_trainer.data.files import SourceTable
from sanderling_trainer.data.python_values import python_values
from sanderling_trainer.data.schema import Attribute, Attributes
from sanderling_trainer.data.vectors import read_vectors, vector_column

Vectors = NDArray[np.float32]
Values = Sequence[object] | Vectors
Record = Mapping[str, object]

TEXT_TYPES: tuple[AttributeType, ...] = ("text", "category", "categories")
"""Types whose words a language model reads; it makes little of numbers."""

SHORTEST_VECTOR = 8
"""Lists of so many fractions, all of one length, are vectors unless another type is declared."""

EXPECTED: dict[str, str] = {
    "text": "text",
    "category": "one text, number or boolean",
    "categories": "a list of texts, numbers or booleans",
    "number": "a number",
    "boolean": "true or false",
    "time": cells.A_TIME,
}
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
MISFIT = object()


def typed_columns(
    items: SourceTable, names: Sequence[str], declared: Attributes
) -> tuple[Attributes, dict[str, Values]]:
    """Return the attributes of a table of items by name, and their values, None where missing;
    those of vectors as float32 [n, w] with rows of NaN.

    Types that are not declared follow from the values; an attribute that no item has is left out.

    Raises `TableError` for a declared attribute that the table lacks, and for a value of another
    type than the declared one.
    """
    _check_present(items, names, declared)
    attributes: Attributes = {}
    columns: dict[str, Values] = {}
    for name in [*names, *(name for name in declared if declared[name].file and name not in names)]:
        attribute = declared.get(name)
        if attribute is not None and attribute.file is not None:
            values: Values = read_vectors(items, name, attribute.file)
        elif attribute is None:
            attribute, values = _inferred(items, name)
        elif attribute.type == "vector":
            values = vector_column(items, name)
        else:
            values = typed_values(items, name, attribute)
        if attribute is not None:
            attributes[name] = attribute
            columns[name] = values
    return attributes, columns


def _check_present(items: SourceTable, names: Sequence[str], declared: Attributes) -> None:
    for name, attribute in declared.items():
        if name not in names and attribute.file is None and not attribute.since:
            raise TableError(
                f"{items.name}: expected a column `{name}`, which the schema declares, found"
                f" {', '.join(map(repr, names)) or 'no attributes'}; add it, or remove it from the"
                " schema"
            )


def _inferred(items: SourceTable, name: str) -> tuple[Attribute | None, Values]:
    """Return the type that follows from the values, None where there are none."""
    if _is_vector(items.table.column(name)):
        return Attribute("vector"), vector_column(items, name)
    values = [plain(value) for value in python_values(items.name, name, items.table.column(name))]
    given = [None if is_empty(value) else value for value in values]
    kind = "text" if name == "title" else type_of(given, name)
    return (Attribute(kind) if kind else None), given


def _is_vector(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pt.is_fixed_size_list(kind):
        return pt.is_floating(kind.value_type)
    if not (pt.is_list(kind) or pt.is_large_list(kind)) or not pt.is_floating(kind.value_type):
        return False
    lengths = set(pc.list_value_length(column).drop_null().unique().to_pylist()) - {0}
    return len(lengths) == 1 and min(lengths) >= SHORTEST_VECTOR


def typed_values(items: SourceTable, name: str, attribute: Attribute) -> list[object]:
    """Return the values of a declared type; raise `TableError` for the first of another one."""
    given = python_values(items.name, name, items.table.column(name))
    values = [fitted(value, attribute) for value in given]
    for row, value in enumerate(values):
        if value is MISFIT:
            raise misfit(items, row, name, attribute, given[row])
    return values


def misfit(
    items: SourceTable, row: int, name: str, attribute: Attribute, found: object
) -> TableError:
    """Return the error for a value of another type than the attribute's."""
    expected = EXPECTED[attribute.type]
    if attribute.since:
        expected += f", as in release {attribute.since}"
        remedy = "fix the cell, give the attribute another name, or train a new policy"
    else:
        remedy = "fix the cell, or declare another type in schema.toml"
    error = cells.fault(*items.place(row), name, expected, found)
    return TableError(f"{error}; {remedy}")


def fitted(value: object, attribute: Attribute) -> object:
    """Return a value as JSON holds it in an attribute of its type, None for a missing one, `MISFIT`
    for one of another type. Text stands for numbers, times and booleans where it reads as one."""
    if attribute.separator is not None and isinstance(value, str):
        value = [part.strip() for part in value.split(attribute.separator)]
    value = plain(value)
    if isinstance(value, list):
        value = [part for part in value if part != ""]
    if is_empty(value):
        return None
    kind = attribute.type
    if kind == "number":
        return _number(value)
    if kind == "boolean":
        key = str(value).strip().lower()
        return BOOLEANS.get(key, MISFIT) if isinstance(value, str | bool | int) else MISFIT
    if kind == "time":
        return _time(value)
    if kind == "categories":
        elements = value if isinstance(value, list) else [value]
        is_fine = all(isinstance(each, str | int | float) for each in elements)
        return elements if is_fine else MISFIT
    if isinstance(value, list):
        return MISFIT
    return str(value) if kind == "text" else value


def check_same_kinds(
    name: str,
    before: Sequence[Record],
    after: Sequence[Record],
    attributes: Attributes,
    release: int,
) -> None:
    """Raise `TableError` where a category of one release has values that the one before it would
    not compare: numbers among texts, or the reverse.

    before, after: the records of the two catalogs, the second of the table called `name`.
    attributes, release: of the first catalog.
    """
    for attribute, known in attributes.items():
        if known.type not in CATEGORIES:
            continue
        old = _kinds(record.get(attribute) for record in before)
        for row, record in enumerate(after):
            found = _kinds([record.get(attribute)]) - old
            if old and found:
                expected = f"{' and '.join(sorted(old))}, as in release {release}"
                error = cells.fault(name, row, attribute, expected, record[attribute])
                raise TableError(
                    f"{error}; fix the column, give the attribute another name, or train a new"
                    " policy"
                )


def _kinds(values: Iterable[object]) -> set[str]:
    """Return what values, or the elements of lists, are: texts, numbers, booleans."""
    given = (part for value in values for part in (value if isinstance(value, list) else [value]))
    return {TYPE_NAMES[type(part)] for part in given if type(part) in TYPE_NAMES}


def _number(value: object) -> object:
    if isinstance(value, str):
        number = cells.parse_number(value)
        if not math.isfinite(number):
            return MISFIT
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return value if isinstance(value, int | float) and not isinstance(value, bool) else MISFIT


def _time(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return MISFIT
    if isinstance(value, str) and kind_of([value.strip()]) == "time":
        return value.strip()
    seconds = cells.parse_time(str(value))
    return seconds if cells.is_time(seconds) else MISFIT


def plain(value: object) -> object:
    """Return a value that JSON can hold, None for a number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [part for part in map(plain, value) if part is not None]
    return value if value is None or isinstance(value, str | int) else str(value)


def known_types(declared: Attributes, before: Attributes, release: int, name: str) -> Attributes:
    """Return what a new catalog's attributes are held to: the types of the active release's, and
    those that are new.

    declared: by the schema called `name`.

    Raises `TableError` where the schema declares another type than the release has.
    """
    known = {attribute: replace(each, since=release) for attribute, each in before.items()}
    for attribute, each in declared.items():
        if attribute in known and known[attribute].type != each.type:
            raise TableError(
                f"{name}: items.{attribute}: expected {known[attribute].type}, as in release"
                f" {release}, found {each.type}; give the attribute another name, or train a new"
                " policy"
            )
        known[attribute] = each
    return known
