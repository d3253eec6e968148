"""Tables on the command line: CSV always; Parquet, folders and URLs with the trainer installed."""

from __future__ import annotations

import csv
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sanderling.errors import TableError
from sanderling.runtime.output_paths import check_creatable
from sanderling.tables.event_log import EventLog, ReadOptions, read_csv_log

LAB = "sanderling.tables"
"""The entry point `parquet` of this group is what the trainer reads and writes with."""

CSV = (".csv", ".csv.gz")
PARQUET = (".parquet", ".pq")


def read_log(source: str, options: ReadOptions) -> EventLog:
    """Return a log by time; raise `TableError` naming file, row and column of a bad cell.

    The trainer's reader, where it is installed, gives the same values for the same file.
    """
    lab = installed_lab()
    if lab is not None:
        log: EventLog = lab.read_log(source, options)
        return log
    if not source.lower().endswith(CSV):
        raise TableError(
            f"{source}: expected a file name ending in {' or '.join(CSV)}; convert it, or install"
            " what reads Parquet, folders and URLs: pip install sanderling-trainer"
        )
    return read_csv_log(Path(source), options)


def write(path: Path, columns: tuple[str, ...], content: list[dict[str, Any]]) -> None:
    """Write rows to a CSV or Parquet file, and make the folders above it."""
    if path.suffix.lower() in PARQUET:
        _parquet(path).write(path, content)
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
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        _parquet(path)
    elif suffix != ".csv":
        raise TableError(
            f"{path}: expected a file name ending in .csv or .parquet; convert or rename it"
        )
    if path.is_dir():
        raise TableError(
            f"{path}: expected the name of a file, found a folder; choose another name"
        )
    check_creatable(path)


def installed_lab() -> Any:
    """Return what the trainer reads and writes with, None where it is not installed."""
    for point in entry_points(group=LAB, name="parquet"):
        return point.load()
    return None


def _parquet(path: Path) -> Any:
    lab = installed_lab()
    if lab is None:
        raise TableError(
            f"{path}: Parquet needs the trainer: pip install sanderling-trainer, or use a .csv file"
        )
    return lab
