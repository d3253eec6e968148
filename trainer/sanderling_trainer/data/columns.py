"""Columns of a table as checked arrays. Refuses to know which columns a table should have.

Every check looks at whole columns and names the first bad row, counted from 1 without the header.
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

LONGEST_NAME = 512  # the wire's limit for ids and kinds
LARGEST_RANK = 2**53
FIRST_SECOND = -62_135_596_800  # 0001-01-01
LAST_SECOND = 253_402_300_799  # 9999-12-31


@dataclass(frozen=True)
class Columns:
    """A table and the file it came from, so that every fault can say where it is."""

    path: Path
    table: pa.Table

    @classmethod
    def read(cls, path: Path, required: tuple[str, ...]) -> Columns:
        """Read a file and make sure that the required columns are there."""
        table = read_file(path)
        missing = [name for name in required if name not in table.column_names]
        if missing:
            raise TableError(
                f"{path}: expected the columns {', '.join(required)}, found {', '.join(table.column_names)};"
                f" add or rename {', '.join(missing)}"
            )
        return cls(path, table)

    def has(self, name: str) -> bool:
        """Say whether an optional column is there."""
        return name in self.table.column_names

    def fault(self, row: int, name: str, expected: str, found: object) -> TableError:
        """Return the error for one cell; `row` counts from 0 here and from 1 in the message."""
        shown = "nothing" if found is None or found == "" else f"`{str(found)[:80]}`"
        return TableError(
            f"{self.path}, row {row + 1}, column `{name}`: expected {expected}, found {shown}"
        )

    def names(self, name: str, expected: str = "an id") -> pa.Array:
        """Return a column of ids as text `[n]`: not null, 1 to 512 characters; whole numbers become their digits."""
        column = self.strings(name)
        length = pc.fill_null(pc.utf8_length(column), 0)
        self._refuse(
            name,
            pc.or_(pc.less(length, 1), pc.greater(length, LONGEST_NAME)),
            f"{expected} of 1 to 512 characters",
        )
        return column

    def strings(self, name: str) -> pa.Array:
        """Return a column as text `[n]` with its nulls; only text and whole numbers can become text."""
        column = self._whole(name)
        if not (_is_text(column.type) or pt.is_integer(column.type) or pt.is_null(column.type)):
            raise self.fault(0, name, "text or a whole number", f"the type {column.type}")
        try:
            return pc.cast(column, pa.string())
        except pa.ArrowException as error:
            raise TableError(
                f"{self.path}, column `{name}`: expected UTF-8 text, found: {error}"
            ) from error

    def rewards(self, name: str) -> np.ndarray:
        """Return rewards as float32 `[n]`, each in [-1, 1]."""
        column = self._whole(name)
        values = self._floats(column)
        bad = ~((values >= -1.0) & (values <= 1.0))
        self._refuse(name, pa.array(bad), "a number from -1 to 1")
        return values.astype(np.float32)

    def ranks(self, name: str) -> np.ndarray:
        """Return ranks as int64 `[n]`, each 1 or more."""
        values = self._floats(self._whole(name))
        good = (values >= 1) & (values <= LARGEST_RANK) & (values == np.floor(values))
        self._refuse(name, pa.array(~good), "a whole number from 1")
        return values.astype(np.int64)

    def seconds(self, name: str, latest: int = LAST_SECOND) -> np.ndarray:
        """Return times as int64 `[n]`, seconds since 1970 UTC, rounded down, none later than `latest`.

        A number is always seconds. Text may be a number or ISO 8601; without an offset it is UTC.
        """
        column = self._whole(name)
        if pt.is_date(column.type) or pt.is_timestamp(column.type):
            column = pc.cast(
                column, pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False
            )
            values = self._floats(pc.cast(column, pa.int64())) / 1e6
        elif _is_text(column.type):
            values = np.array([_parse_time(text) for text in column.to_pylist()], dtype=np.float64)
        else:
            values = self._floats(column)
        bad = ~((values >= FIRST_SECOND) & (values <= latest))
        past = "" if latest == LAST_SECOND else f", not later than second {latest}"
        self._refuse(
            name, pa.array(bad), f"seconds since 1970 (not milliseconds) or an ISO 8601 time{past}"
        )
        return np.floor(values).astype(np.int64)

    def _whole(self, name: str) -> pa.Array:
        column = self.table.column(name).combine_chunks()
        column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
        return column.dictionary_decode() if pt.is_dictionary(column.type) else column

    def _floats(self, column: pa.Array) -> np.ndarray:
        """Return float64 with NaN for whatever is null or no number."""
        if _is_text(column.type):
            return np.array([_parse_number(text) for text in column.to_pylist()], dtype=np.float64)
        if not (
            pt.is_integer(column.type) or pt.is_floating(column.type) or pt.is_decimal(column.type)
        ):
            return np.full(len(column), np.nan)
        return np.asarray(
            pc.fill_null(pc.cast(column, pa.float64(), safe=False), math.nan), np.float64
        )

    def _refuse(self, name: str, bad: pa.Array, expected: str) -> None:
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise self.fault(row, name, expected, self._whole(name)[row].as_py())


def codes(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return int64 codes `[n]` and the names they stand for, in order of first appearance; null is -1."""
    encoded = column.dictionary_encode()
    return pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(
        np.int64
    ), encoded.dictionary.to_pylist()


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
