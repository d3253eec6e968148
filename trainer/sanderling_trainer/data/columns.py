"""Columns of a table as checked arrays.

Each check runs over a whole column and names the first bad row, counted from 1 without the header.
What a cell means is said once, in `sanderling.tables.cells`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sanderling.errors import TableError
from sanderling.tables import cells
from sanderling.tables.cells import LAST_SECOND, MAX_NAME_LENGTH
from sanderling.tables.columns import locate
from sanderling.tables.event_log import ReadOptions
from sanderling_trainer.data.files import Source, SourceTable, read_source

MAX_RANK = 2**53  # doubles hold whole numbers exactly up to here
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second

log = logging.getLogger("sanderling")


@dataclass(frozen=True)
class Columns:
    """A table whose columns have the names of fields, and the source that error messages name."""

    source: SourceTable
    table: pa.Table

    column_of: dict[str, str] = field(default_factory=dict)
    """The name of each field's column in the source, if it has another."""

    options: ReadOptions = field(default_factory=ReadOptions)

    rows: np.ndarray | None = None
    """int64 [n], which row of the source each row is; None: all of them."""

    incomplete: int = 0
    """Rows of the source that lack a value in one of the fields."""

    @classmethod
    def read(
        cls,
        source: Source,
        required: tuple[str, ...],
        optional: tuple[str, ...] = (),
        options: ReadOptions | None = None,
        *,
        keep_others: bool = False,
    ) -> Columns:
        """Read a source; raise `TableError` where a required column is missing.

        keep_others: also keep columns that are no fields.
        """
        options = options or ReadOptions()
        read = read_source(source)
        found = read.table.column_names
        column_of = locate(read.name, found, required, optional, options.columns)
        table = read.table.select(list(column_of.values())).rename_columns(list(column_of))
        if keep_others:
            used = {*column_of, *column_of.values()}
            for name in found:
                if name not in used:
                    table = table.append_column(name, read.table.column(name))
        return cls(read, table, column_of, options)

    def complete(self, fields: tuple[str, ...]) -> Columns:
        """Return the rows that have a value in all of the fields that are there, or, unless
        `drop_incomplete` is set, all rows with the number of those that have not.
        """
        empty = np.zeros(len(self.table), np.bool_)
        for name in fields:
            if self.has(name):
                empty |= _is_empty(self.array(name))
        incomplete = int(empty.sum())
        if not self.options.drop_incomplete:
            return replace(self, incomplete=incomplete)

        rows = np.flatnonzero(~empty)
        if not len(rows):
            raise TableError(f"{self.source.name}: expected a row with all values, found none")
        if incomplete:
            log.warning("%s: left out: %s", self.source.name, cells.lacking(incomplete))
        return replace(self, table=self.table.take(rows), rows=rows, incomplete=incomplete)

    @property
    def left_out(self) -> int:
        """How many rows of the source are left out."""
        return 0 if self.rows is None else self.source.table.num_rows - len(self.rows)

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self.table.column_names

    def fault(self, row: int, name: str, expected: str, found: object) -> TableError:
        """Return the error for one cell; `row` counts from 0 here and from 1 in the message."""
        place = self.source.place(int(row if self.rows is None else self.rows[row]))
        column = self.column_of.get(name, name)
        return cells.fault(*place, column, expected, found, incomplete=self.incomplete)

    def names(self, name: str, expected: str) -> pa.Array:
        """Return a column of ids as text [n], none null, each of 1 to 512 characters.

        Whole numbers become their digits.
        """
        column = self.strings(name)
        length = pc.fill_null(pc.utf8_length(column), 0)
        bad = pc.or_(pc.less(length, 1), pc.greater(length, MAX_NAME_LENGTH))
        self._check(name, bad, expected)
        return column

    def strings(self, name: str) -> pa.Array:
        """Return a column of text or whole numbers as text [n], nulls included."""
        column = self.array(name)
        if pt.is_floating(column.type):
            column = self._whole(name, column)
        if not (_is_text(column.type) or pt.is_integer(column.type) or pt.is_null(column.type)):
            raise self.fault(0, name, "text or a whole number", f"the type {column.type}")
        try:
            return pc.cast(column, pa.string())
        except pa.ArrowException as error:
            raise TableError(
                f"{self.source.name}, column `{self.column_of.get(name, name)}`:"
                f" expected UTF-8 text, found: {error}"
            ) from error

    def rewards(self, name: str) -> np.ndarray:
        """Return rewards as float32 [n], each in [-1, 1]."""
        values = self._floats(self.array(name))
        bad = ~((values >= -1.0) & (values <= 1.0))  # true for NaN too
        self._check(name, pa.array(bad), cells.A_REWARD)
        return values.astype(np.float32)

    def ranks(self, name: str) -> np.ndarray:
        """Return ranks as int64 [n], each 1 or more."""
        values = self._floats(self.array(name))
        good = (values >= 1) & (values <= MAX_RANK) & (values == np.floor(values))
        self._check(name, pa.array(~good), "a whole number from 1")
        return values.astype(np.int64)

    def seconds(self, name: str, latest: int = LAST_SECOND) -> np.ndarray:
        """Return times as int64 [n], seconds since 1970 UTC, rounded down, none
        later than `latest`.

        A number is always seconds. Text may be a number or ISO 8601; without an offset it is UTC.
        """
        column = self.array(name)
        if pt.is_date(column.type) or pt.is_timestamp(column.type):
            values = _seconds_of(column)
        elif _is_text(column.type):
            values = self._parsed_times(column)
        else:
            values = self._floats(column)
        bad = ~((values >= cells.FIRST_SECOND) & (values <= latest))
        limit = "" if latest == LAST_SECOND else f", not later than second {latest}"
        time_format = self.options.time_format if _is_text(column.type) else None
        expected = cells.A_TIME if time_format is None else f"a time such as {time_format}"
        self._check(name, pa.array(bad), f"{expected}{limit}")
        return np.floor(values).astype(np.int64)

    def array(self, name: str) -> pa.Array:
        """Return a column in one piece."""
        return one_piece(self.table.column(name))

    def _whole(self, name: str, column: pa.Array) -> pa.Array:
        """Return floats as whole numbers: what pandas makes of whole numbers with gaps."""
        values = self._floats(column)
        empty = np.isnan(values)
        bad = ~empty & ~((np.abs(values) < MAX_RANK) & (values == np.floor(values)))
        self._check(name, pa.array(bad), "text or a whole number")
        return pa.array(np.where(empty, 0, values).astype(np.int64), mask=empty)

    def _parsed_times(self, column: pa.Array) -> np.ndarray:
        # Each text is parsed once: a log has far fewer seconds than events.
        encoded = column.dictionary_encode()
        parsed = [
            cells.parse_time(text, self.options.time_format)
            for text in encoded.dictionary.to_pylist()
        ]
        places = pc.fill_null(encoded.indices, len(parsed)).to_numpy(zero_copy_only=False)
        return np.array([*parsed, math.nan])[places]

    def _floats(self, column: pa.Array) -> np.ndarray:
        """Return float64 [n], NaN where a cell is null or not a number."""
        if _is_text(column.type):
            numbers = map(cells.parse_number, column.to_pylist())
            return np.fromiter(numbers, np.float64, len(column))

        kind = column.type
        if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
            return np.full(len(column), np.nan)

        floats = pc.cast(column, pa.float64(), safe=False)
        return np.asarray(pc.fill_null(floats, math.nan), np.float64)

    def _check(self, name: str, bad: pa.Array, expected: str) -> None:
        """Raise the error for the first bad cell of a column, if there is one."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise self.fault(row, name, expected, _shown(self.array(name)[row]))


def one_piece(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, decoded."""
    array = column.combine_chunks()
    # Arrow returns several chunks where one array could not hold the text.
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    return array.dictionary_decode() if pt.is_dictionary(array.type) else array


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
        found = columns.names("item_id", cells.AN_ITEM)[unknown[0]]
        raise columns.fault(unknown[0], "item_id", expected, found)
    return rows


def known_rows(columns: Columns, ids: pa.Array) -> np.ndarray:
    """Return the catalog row int64 [n] of each `item_id`, -1 where one is unknown."""
    rows = pc.index_in(columns.names("item_id", cells.AN_ITEM), value_set=ids)
    return np.asarray(pc.fill_null(rows, -1), np.int64)


def kinds_by_sign(reward: np.ndarray) -> pa.Array:
    """Return the kind of event [n] for logs without kinds: by the sign of the reward."""
    return pa.array(cells.KINDS_BY_SIGN).take(pa.array(np.sign(reward).astype(int) + 1))


def _seconds_of(column: pa.Array) -> np.ndarray:
    """Return dates or timestamps as float64 seconds [n], rounded down, NaN for null."""
    kind = column.type
    if pt.is_date32(kind):
        column, seconds, parts = pc.cast(column, pa.int32()), 86_400, 1
    else:
        column = pc.cast(column, pa.int64())
        seconds, parts = 1, UNITS["ms" if pt.is_date(kind) else kind.unit]
    # In whole numbers: a double has no room for nanoseconds.
    whole = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = (whole // parts * seconds).astype(np.float64)
    values[pc.is_null(column).to_numpy(zero_copy_only=False)] = math.nan
    return values


def _is_empty(column: pa.Array) -> np.ndarray:
    """Return which cells have no value: null, NaN, or an empty text."""
    empty = pc.is_null(column, nan_is_null=True)
    if _is_text(column.type):
        empty = pc.or_(empty, pc.fill_null(pc.equal(column, ""), False))
    return np.asarray(empty.to_numpy(zero_copy_only=False), np.bool_)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _shown(value: pa.Scalar) -> object:
    """Return what an error message shows of a cell, also where Python has no such value."""
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return getattr(value, "value", value.type)
