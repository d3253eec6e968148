"""Columns of a table as checked arrays.

Each check runs over a whole column and names the first bad row, counted from 1 without the header.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sanderling.errors import TableError
from sanderling_trainer.data.files import read_file

MAX_NAME_LENGTH = 512  # the wire's limit for ids and kinds
MAX_RANK = 2**53  # doubles hold whole numbers exactly up to here
FIRST_SECOND = -62_135_596_800  # 0001-01-01
LAST_SECOND = 253_402_300_799  # 9999-12-31
KINDS_BY_SIGN = ("dislike", "neutral", "like")


@dataclass(frozen=True)
class Columns:
    """A table and the file it came from, which error messages name."""

    path: Path
    table: pa.Table

    @classmethod
    def read(cls, path: Path, required: tuple[str, ...]) -> Columns:
        """Read a file; raise `TableError` where a required column is missing."""
        table = read_file(path)
        missing = [name for name in required if name not in table.column_names]
        if missing:
            raise TableError(
                f"{path}: expected the columns {', '.join(required)},"
                f" found {', '.join(table.column_names)}; add or rename {', '.join(missing)}"
            )
        return cls(path, table)

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self.table.column_names

    def fault(self, row: int, name: str, expected: str, found: object) -> TableError:
        """Return the error for one cell; `row` counts from 0 here and from 1 in the message."""
        shown = "nothing" if found is None or found == "" else f"`{str(found)[:80]}`"
        return TableError(
            f"{self.path}, row {row + 1}, column `{name}`: expected {expected}, found {shown}"
        )

    def names(self, name: str, expected: str = "an id") -> pa.Array:
        """Return a column of ids as text [n], none null, each of 1 to 512 characters.

        Whole numbers become their digits.
        """
        column = self.strings(name)
        length = pc.fill_null(pc.utf8_length(column), 0)
        bad = pc.or_(pc.less(length, 1), pc.greater(length, MAX_NAME_LENGTH))
        self._check(name, bad, f"{expected} of 1 to 512 characters")
        return column

    def strings(self, name: str) -> pa.Array:
        """Return a column of text or whole numbers as text [n], nulls included."""
        column = self._array(name)
        if not (_is_text(column.type) or pt.is_integer(column.type) or pt.is_null(column.type)):
            raise self.fault(0, name, "text or a whole number", f"the type {column.type}")
        try:
            return pc.cast(column, pa.string())
        except pa.ArrowException as error:
            raise TableError(
                f"{self.path}, column `{name}`: expected UTF-8 text, found: {error}"
            ) from error

    def rewards(self, name: str) -> np.ndarray:
        """Return rewards as float32 [n], each in [-1, 1]."""
        values = self._floats(self._array(name))
        bad = ~((values >= -1.0) & (values <= 1.0))  # true for NaN too
        self._check(name, pa.array(bad), "a number from -1 to 1")
        return values.astype(np.float32)

    def ranks(self, name: str) -> np.ndarray:
        """Return ranks as int64 [n], each 1 or more."""
        values = self._floats(self._array(name))
        good = (values >= 1) & (values <= MAX_RANK) & (values == np.floor(values))
        self._check(name, pa.array(~good), "a whole number from 1")
        return values.astype(np.int64)

    def seconds(self, name: str, latest: int = LAST_SECOND) -> np.ndarray:
        """Return times as int64 [n], seconds since 1970 UTC, rounded down, none
        later than `latest`.

        A number is always seconds. Text may be a number or ISO 8601; without an offset it is UTC.
        """
        column = self._array(name)
        if pt.is_date(column.type) or pt.is_timestamp(column.type):
            microseconds = pa.timestamp("us", tz=getattr(column.type, "tz", None))
            column = pc.cast(column, microseconds, safe=False)
            values = self._floats(pc.cast(column, pa.int64())) / 1e6
        elif _is_text(column.type):
            values = np.array([_parse_time(text) for text in column.to_pylist()], dtype=np.float64)
        else:
            values = self._floats(column)
        bad = ~((values >= FIRST_SECOND) & (values <= latest))
        limit = "" if latest == LAST_SECOND else f", not later than second {latest}"
        expected = f"seconds since 1970 (not milliseconds) or an ISO 8601 time{limit}"
        self._check(name, pa.array(bad), expected)
        return np.floor(values).astype(np.int64)

    def _array(self, name: str) -> pa.Array:
        """Return a column in one piece."""
        column = self.table.column(name).combine_chunks()
        # Arrow returns several chunks where one array could not hold the text.
        column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
        return column.dictionary_decode() if pt.is_dictionary(column.type) else column

    def _floats(self, column: pa.Array) -> np.ndarray:
        """Return float64 [n], NaN where a cell is null or not a number."""
        if _is_text(column.type):
            return np.array([_parse_number(text) for text in column.to_pylist()], dtype=np.float64)

        kind = column.type
        if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
            return np.full(len(column), np.nan)

        floats = pc.cast(column, pa.float64(), safe=False)
        return np.asarray(pc.fill_null(floats, math.nan), np.float64)

    def _check(self, name: str, bad: pa.Array, expected: str) -> None:
        """Raise the error for the first bad cell of a column, if there is one."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise self.fault(row, name, expected, self._array(name)[row].as_py())


def codes(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return int64 codes [n], -1 for null, and the names in order of first appearance."""
    encoded = column.dictionary_encode()
    indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return indices.astype(np.int64), encoded.dictionary.to_pylist()


def catalog_rows(columns: Columns, ids: pa.Array) -> np.ndarray:
    """Return the catalog row int64 [n] of each `item_id`; raise `TableError`
    where one is unknown.
    """
    rows = known_rows(columns, ids)
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        expected = f"one of the {len(ids)} items of the catalog"
        raise columns.fault(unknown[0], "item_id", expected, columns.names("item_id")[unknown[0]])
    return rows


def known_rows(columns: Columns, ids: pa.Array) -> np.ndarray:
    """Return the catalog row int64 [n] of each `item_id`, -1 where one is unknown."""
    rows = pc.index_in(columns.names("item_id", "an item id"), value_set=ids)
    return np.asarray(pc.fill_null(rows, -1), np.int64)


def kinds_by_sign(reward: np.ndarray) -> pa.Array:
    """Return the kind of event [n] for logs without kinds: by the sign of the reward."""
    return pa.array(KINDS_BY_SIGN).take(pa.array(np.sign(reward).astype(int) + 1))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _parse_number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _parse_time(text: str | None) -> float:
    number = _parse_number(text)
    if not math.isnan(number):
        return number
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
