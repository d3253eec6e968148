"""The attributes of a bundle's items as typed columns, in an optional file that is mapped.

`schema` names all attributes with their types. Attribute i has the tensors `i.values`, or `i.rows`,
`i.codes`, `i.present` and `i.vocabulary`; texts have none and are read from the catalog, and of
vectors a device needs the items' rows alone.
docs/BUNDLE.md describes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sanderling.bundle.tensors import Tensors, expect, map_tensors
from sanderling.errors import BundleError

FILE = "columns.safetensors"
MAX_ATTRIBUTES = 1000

AttributeType = Literal["text", "category", "categories", "number", "boolean", "time", "vector"]
TYPES: tuple[AttributeType, ...] = get_args(AttributeType)

STORED_ELSEWHERE = ("text", "vector")
"""Types of which the file has no tensors."""


class AttributeSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attribute's name and type."""

    name: str
    type: AttributeType


class CategoryArrays(NamedTuple):
    """Entry i says that the row `rows[i]` has the value `vocabulary[codes[i]]`."""

    rows: NDArray[np.int32]
    codes: NDArray[np.int32]
    present: NDArray[np.uint8]
    """[n], 1 for the rows that have the attribute."""

    vocabulary: list[Any]


class AttributeColumns:
    """The columns of a mapped file; those of an attribute are checked when they are read."""

    def __init__(self, schema: Sequence[AttributeSchema], tensors: Tensors, rows: int) -> None:
        self.types = {attribute.name: attribute.type for attribute in schema}
        """By attribute its type; those of which no tensor is stored too."""
        self._place = {attribute.name: i for i, attribute in enumerate(schema)}
        self._tensors = tensors
        self._rows = rows

    def numbers(self, attribute: str) -> NDArray[np.float64]:
        """Return the numbers float64 [n] of a number, a boolean (0, 1) or a time (seconds since
        1970), NaN where missing. Raises `BundleError` where the file has others."""
        name = f"{self._place[attribute]}.values"
        numbers = expect(self._tensors, FILE, name, np.float64, (self._rows,))
        if self.types[attribute] == "boolean":
            is_known = (numbers == 0.0) | (numbers == 1.0) | np.isnan(numbers)
            if not is_known.all():
                raise BundleError(f"{FILE}: {name}: expected 0, 1 or NaN, found another number")
        return numbers

    def categories(self, attribute: str) -> CategoryArrays:
        """Return the entries of a category or categories; raise `BundleError` for wrong ones."""
        place = self._place[attribute]
        codes = self._tensors.get(f"{place}.codes", np.empty(0))
        rows = expect(self._tensors, FILE, f"{place}.rows", np.int32, codes.shape)
        codes = expect(self._tensors, FILE, f"{place}.codes", np.int32, (codes.size,))
        present = expect(self._tensors, FILE, f"{place}.present", np.uint8, (self._rows,))
        text = self._tensors.get(f"{place}.vocabulary", np.empty(0, np.uint8)).tobytes()
        try:
            vocabulary = msgspec.json.decode(text, type=list[str | float | int | bool])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(f"{FILE}: {place}.vocabulary: {error}") from error
        for name, values, limit in (
            ("rows", rows, self._rows),
            ("codes", codes, len(vocabulary)),
            ("present", present, 2),
        ):
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise BundleError(f"{FILE}: {place}.{name}: expected 0 to {limit - 1}")
        return CategoryArrays(rows, codes, present, vocabulary)

    def check(self) -> None:
        """Read all columns; raise `BundleError` for the first that is wrong."""
        for attribute, kind in self.types.items():
            if kind in ("category", "categories"):
                self.categories(attribute)
            elif kind not in STORED_ELSEWHERE:
                self.numbers(attribute)


def read(folder: Path, rows: int) -> AttributeColumns:
    """Return the columns of a bundle of n items; raise `BundleError` for a malformed file."""
    tensors = map_tensors(folder / FILE)
    text = tensors.get("schema")
    try:
        schema = msgspec.json.decode(
            b"" if text is None else text.tobytes(), type=list[AttributeSchema]
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{FILE}: schema: {error}") from error
    names = {attribute.name for attribute in schema}
    if len(names) != len(schema) or len(schema) > MAX_ATTRIBUTES:
        raise BundleError(
            f"{FILE}: schema: expected at most {MAX_ATTRIBUTES} attributes of different names,"
            f" found {len(schema)}"
        )
    return AttributeColumns(schema, tensors, rows)


def write(
    folder: Path,
    schema: Sequence[AttributeSchema],
    columns: Sequence[NDArray[np.float64] | CategoryArrays | None],
) -> None:
    """Write the columns of attributes, None for texts and vectors."""
    tensors: dict[str, NDArray[Any]] = {"schema": _as_bytes(schema)}
    for place, column in enumerate(columns):
        if isinstance(column, CategoryArrays):
            tensors |= {
                f"{place}.rows": column.rows,
                f"{place}.codes": column.codes,
                f"{place}.present": column.present,
                f"{place}.vocabulary": _as_bytes(column.vocabulary),
            }
        elif column is not None:
            tensors[f"{place}.values"] = column
    save_file(tensors, folder / FILE)


def _as_bytes(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(msgspec.json.encode(value), np.uint8)
