"""Columns of an Arrow table as Python's own values, also where Python has no such value."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from sanderling.errors import TableError

UNREADABLE = (ValueError, OverflowError, pa.ArrowException)


def python_values(name: str, column: str, values: pa.ChunkedArray) -> list[object]:
    """Return the values of one column.

    Python's times have microseconds: what is below one is cut off. Raises `TableError` where Python
    has no such values, as for times beyond the year 9999.
    """
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
