"""Reads and writes Parquet and CSV files as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from sanderling.errors import TableError
from sanderling.runtime.files import replace_durably

PARQUET = (".parquet", ".pq")
CSV = (".csv",)


def read_file(path: Path) -> pa.Table:
    """Read a whole table; every CSV column is text, so that an id `007` stays `007`.

    Raises `TableError` where the file is missing, has another extension, is not what its extension
    says, has no rows, or names a column twice.
    """
    kind = _kind(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise TableError(f"{path}: expected a file, found {found}; check the path")
    try:
        table = pq.read_table(path) if kind == "Parquet" else _read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(
            f"{path}: expected a {kind} file, found one that cannot be read: {error}"
        ) from error
    _check_shape(path, table)
    return table


def write_file(path: Path, table: pa.Table) -> None:
    """Write a table in the format of the path's extension; the file appears whole or not at all.

    Raises `TableError` where it cannot be written.
    """
    kind = _kind(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "Parquet":
            pq.write_table(table, partial)
        else:
            pc_csv.write_csv(table, partial)
        replace_durably(partial, path)
    except (pa.ArrowException, OSError) as error:
        partial.unlink(missing_ok=True)
        raise TableError(
            f"{path}: expected to write a {kind} file there, found: {error}"
        ) from error


def from_rows(path: Path, rows: Iterable[dict[str, object]]) -> pa.Table:
    """Return the rows as an Arrow table; raise `TableError` where a column mixes types."""
    try:
        return pa.Table.from_pylist(list(rows))
    except pa.ArrowException as error:
        raise TableError(f"{path}: expected one type in each column, found: {error}") from error


def _kind(path: Path) -> str:
    if path.suffix.lower() in PARQUET:
        return "Parquet"
    if path.suffix.lower() in CSV:
        return "CSV"
    found = f"`{path.suffix}`" if path.suffix else "none"
    raise TableError(
        f"{path}: expected the extension .parquet or .csv, found {found};"
        " convert or rename the file"
    )


def _read_csv(path: Path) -> pa.Table:
    parse = pc_csv.ParseOptions(newlines_in_values=True)

    # The names must be known before reading, since only a type for each keeps Arrow from guessing.
    with pc_csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    convert = pc_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    return pc_csv.read_csv(path, parse_options=parse, convert_options=convert)


def _check_shape(path: Path, table: pa.Table) -> None:
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise TableError(
            f"{path}: expected each column once, found {', '.join(repeated)} more than once;"
            " rename them"
        )
    if table.num_rows == 0:
        raise TableError(f"{path}: expected at least one row, found none")
