"""Reads tables from files, folders, object stores and data frames as Arrow tables, and writes them.

CSV goes through the reader of the device (`sanderling.tables.csv_file`), so that a file means the
same on both sides; Parquet goes through `pyarrow.dataset`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.types as pt
from pyarrow import fs

from sanderling.errors import TableError
from sanderling.runtime.files import replace_durably
from sanderling.tables.csv_file import CsvFile

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz")
ROWS_AT_ONCE = 65_536  # of a CSV file that become Arrow arrays together

Source = Any
"""A path, the URL of an object store, an Arrow table, a frame of pandas or polars, or a table that
was read before (`SourceTable`)."""


@dataclass(frozen=True)
class SourceTable:
    """A table and what it was read from."""

    name: str
    """What error messages call the source."""

    table: pa.Table

    parts: Callable[[], list[tuple[str, int]]]
    """Returns name and number of rows of each file that the table came from."""

    rows: np.ndarray | None = None
    """int64 [n], which row of these files each row is; None: all of them."""

    def place(self, row: int) -> tuple[str, int]:
        """Return the name of the file that a row came from, and the row's number in it, from 0."""
        row = row if self.rows is None else int(self.rows[row])
        for name, rows in self.parts():
            if row < rows:
                return name, row
            row -= rows
        return self.name, row


def read_source(source: Source) -> SourceTable:
    """Read a whole table; every CSV column is text, so that an id `007` stays `007`.

    A folder is all Parquet or all CSV files below it, in the order of their names, without those
    whose names begin with a dot or an underscore.

    Raises `TableError` where the source is missing, has another extension, is not what its
    extension says, has no rows, or names a column twice.
    """
    if isinstance(source, SourceTable):
        return source
    read = _read_location(str(source)) if isinstance(source, str | Path) else _read_frame(source)
    _check_shape(read.name, read.table)
    return replace(read, table=_without_views(read.table))


def read_file(source: Source) -> pa.Table:
    """Return the table of a source. See `read_source`."""
    return read_source(source).table


def write_file(path: Path, table: pa.Table) -> None:
    """Write a table in the format of the path's extension; the file appears whole or not at all.

    Raises `TableError` where it cannot be written.
    """
    kind = _kind(str(path))
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


def _read_frame(frame: Any) -> SourceTable:
    """Return the table of an object that Arrow can read: its own, of pandas, of polars."""
    name = f"the {type(frame).__name__}"
    is_pandas = type(frame).__module__.split(".")[0] == "pandas"
    try:
        table = pa.Table.from_pandas(frame) if is_pandas else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TableError(
            f"expected a path, a URL, an Arrow table, or a frame of pandas or polars,"
            f" found {name}: {error}"
        ) from error
    return SourceTable(name, table, lambda: [(name, table.num_rows)])


def _read_location(name: str) -> SourceTable:
    try:
        filesystem, path = _filesystem(name)
        files = _files(name, filesystem, path)
        kind = _kind(files[0])
        if kind == "Parquet":
            return _read_parquet(name, filesystem, path, files)
        return _read_csv(name, filesystem, path, files)
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{name}: expected a table, found one that cannot be read: {error}"
        ) from error


def _filesystem(name: str) -> tuple[fs.FileSystem, str]:
    """Return where a path or URL points."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        return fs.LocalFileSystem(), str(Path(name).absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(name)
        return filesystem, path
    except (pa.ArrowInvalid, ValueError) as error:
        raise TableError(
            f"{name}: expected a path, or the URL of an object store such as s3://bucket/log/:"
            f" {error}"
        ) from error


def _files(name: str, filesystem: fs.FileSystem, path: str) -> list[str]:
    """Return the files of a table, in the order of their names, all of one kind."""
    found = filesystem.get_file_info(path)
    if found.type == fs.FileType.NotFound:
        raise TableError(f"{name}: expected a file or a folder, found nothing; check the path")
    if found.type != fs.FileType.Directory:
        _kind(name)
        return [path]

    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = sorted(
        entry.path
        for entry in inside
        if entry.type == fs.FileType.File
        and not re.search(r"/[._]", entry.path[len(path) :])
        and entry.path.lower().endswith((*PARQUET, *CSV))
    )
    if not files:
        raise TableError(f"{name}: expected Parquet or CSV files in the folder, found none")
    if len({_kind(file) for file in files}) > 1:
        raise TableError(
            f"{name}: expected files of one kind in the folder, found Parquet and CSV; name one of"
            " them, or move the others"
        )
    return files


def _kind(name: str) -> str:
    if name.lower().endswith(PARQUET):
        return "Parquet"
    if name.lower().endswith(CSV):
        return "CSV"
    suffix = Path(name).suffix
    found = f"`{suffix}`" if suffix else "none"
    raise TableError(
        f"{name}: expected the extension .parquet, .csv or .csv.gz, or a folder of such files,"
        f" found {found}; convert or rename the file"
    )


def _read_parquet(name: str, filesystem: fs.FileSystem, path: str, files: list[str]) -> SourceTable:
    # A folder such as `day=2024-03-01/` is a column, as other tools have it.
    hive: dict[str, Any] = (
        {"partitioning": "hive", "partition_base_dir": path} if files != [path] else {}
    )
    try:
        found = ds.dataset(files, filesystem=filesystem, format="parquet", **hive)
        if len(files) > 1:
            schemas = [found.schema, *(part.physical_schema for part in found.get_fragments())]
            found = found.replace_schema(pa.unify_schemas(schemas, promote_options="permissive"))
        table = found.to_table()
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{name}: expected a Parquet file, found one that cannot be read: {error}"
        ) from error

    def parts() -> list[tuple[str, int]]:
        if len(files) == 1:
            return [(_shown(name, path, files[0]), table.num_rows)]
        return [
            (_shown(name, path, part.path), part.count_rows()) for part in found.get_fragments()
        ]

    return SourceTable(name, table, parts)


def _read_csv(name: str, filesystem: fs.FileSystem, path: str, files: list[str]) -> SourceTable:
    tables = []
    parts = []
    for file in files:
        shown = _shown(name, path, file)
        # Unpacked by Arrow where the name ends in .gz.
        csv_file = CsvFile(shown, lambda file=file: filesystem.open_input_stream(file))  # type: ignore[misc]
        tables.append(pa.Table.from_batches(_batches(csv_file)))
        parts.append((shown, tables[-1].num_rows))
        if sorted(tables[-1].column_names) != sorted(tables[0].column_names):
            raise TableError(
                f"{shown}: expected the columns of {parts[0][0]},"
                f" {', '.join(tables[0].column_names)}, found {', '.join(tables[-1].column_names)}"
            )
    names = tables[0].column_names
    table = pa.concat_tables([table.select(names) for table in tables])
    return SourceTable(name, table, lambda: parts)


def _batches(file: CsvFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV file; the first batch may be empty, so that there is one."""
    records = file.records()
    header = next(records)
    schema = pa.schema([(name, pa.string()) for name in header])
    yield pa.RecordBatch.from_pylist([], schema)
    while rows := list(islice(records, ROWS_AT_ONCE)):
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _shown(name: str, path: str, file: str) -> str:
    """Return a file below a table's path, as the caller named the path."""
    return name if file == path else f"{name.rstrip('/')}{file[len(path.rstrip('/')) :]}"


def _without_views(table: pa.Table) -> pa.Table:
    """Return the table with texts of polars' own type as those that Arrow can compute with."""
    fields = [field.with_type(_without_view(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def _without_view(kind: pa.DataType) -> pa.DataType:
    if pt.is_string_view(kind):
        return pa.large_string()
    if pt.is_list(kind) or pt.is_large_list(kind):
        inner = _without_view(kind.value_type)
        return kind if inner == kind.value_type else pa.large_list(inner)
    return kind


def _check_shape(name: str, table: pa.Table) -> None:
    repeated = sorted(
        {column for column in table.column_names if table.column_names.count(column) > 1}
    )
    if repeated:
        raise TableError(
            f"{name}: expected each column once, found {', '.join(map(repr, repeated))} more than"
            " once; rename them"
        )
    if table.num_rows == 0:
        raise TableError(f"{name}: expected at least one row, found none")
