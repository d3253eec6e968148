"""Tables on the command line: CSV always, Parquet where the trainer is installed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sanderling.cli.options import check_creatable
from sanderling.errors import TableError

READERS = "sanderling.tables"


def rows(path: Path, required: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table; raise `TableError` naming file, row and column where a required
    value is missing.
    """
    source = _csv_rows(path) if path.suffix == ".csv" else _reader(path).rows(path)
    for number, row in enumerate(source, 1):
        for column in required:
            if row.get(column) in (None, ""):
                raise TableError(
                    f"{path}: row {number}: column {column}: expected a value, found none"
                )
        yield row


def write(path: Path, columns: tuple[str, ...], content: list[dict[str, Any]]) -> None:
    """Write rows to a CSV or Parquet file, and make the folders above it."""
    if path.suffix != ".csv":
        _reader(path).write(path, content)
        return

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(content)


def check_output(path: Path) -> None:
    """Raise `TableError` or `OSError` where `write` could not write to `path`: before the work
    rather than after.
    """
    if path.suffix != ".csv":
        _reader(path)
    if path.is_dir():
        raise TableError(
            f"{path}: expected the name of a file, found a folder; choose another name"
        )
    check_creatable(path)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: expected a CSV file: {error}") from error


def _reader(path: Path) -> Any:
    if path.suffix != ".parquet":
        raise TableError(
            f"{path}: expected a file name ending in .csv or .parquet; convert or rename it"
        )
    for point in entry_points(group=READERS, name="parquet"):
        return point.load()
    raise TableError(
        f"{path}: Parquet needs the trainer: pip install sanderling-trainer, or use a .csv file"
    )
