"""Rows of an Arrow table as Python's own values, also where Python has no such value."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from sanderling.errors import TableError

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)


def python_rows(name: str, table: pa.Table) -> list[dict[str, object]]:
    """Return the rows as dictionaries.

    Python's times have microseconds: what is below one is cut off. Raises `TableError` that names a
    column with values that Python has not, such as times beyond the year 9999.
    """
    columns = {
        column: python_values(name, column, table.column(column)) for column in table.column_names
    }
    return [
        dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
    ] or [{} for _ in range(table.num_rows)]


def python_values(name: str, column: str, values: pa.ChunkedArray) -> list[object]:
    """Return the values of one column. See `python_rows`."""
    for kind in (values.type, _in_microseconds(values.type)):
        try:
            found: list[object] = values.cast(kind, safe=False).to_pylist()
        except UNREADABLE:
            continue
        return found
    raise TableError(
        f"{name}, column `{column}`: expected values that can be shown, times up to the year 9999,"
        f" found others of the type {values.type}; convert the column to text, or remove it"
    )


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pt.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pt.is_duration(kind):
        return pa.duration("us")
    if pt.is_time(kind):
        return pa.time64("us")
    return pa.list_(_in_microseconds(kind.value_type)) if pt.is_list(kind) else kind
