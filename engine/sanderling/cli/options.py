"""Options that commands share, and checks of option values that would otherwise fail after the work
is done.
"""

from __future__ import annotations

import math
import os
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from sanderling.tables.columns import parse_columns
from sanderling.tables.event_log import ReadOptions


def columns_checked(texts: list[str] | None) -> list[str] | None:
    """Check a mapping of columns and return it unchanged: a callback."""
    read_options(texts)
    return texts


def time_format_checked(text: str | None) -> str | None:
    """Check a format of times, as strptime has it, and return it unchanged: a callback."""
    sample = datetime(2001, 2, 3, 4, 5, 6)
    if text is not None and sample.date() != _parsed(sample.strftime(text), text):
        raise typer.BadParameter(
            f"expected a format with year, month and day such as '%m/%d/%Y %H:%M', found {text!r}"
        )
    return text


def _parsed(text: str, time_format: str) -> date | None:
    try:
        return datetime.strptime(text, time_format).date()
    except ValueError:
        return None


def read_options(
    columns: list[str] | None = None, drop_incomplete: bool = False, time_format: str | None = None
) -> ReadOptions:
    """Return how tables are read by three options of a command; raise `BadParameter` where the
    mapping of columns is none.
    """
    try:
        return ReadOptions(parse_columns(columns or ()), drop_incomplete, time_format)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object on the last line of stdout."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")
]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        callback=columns_checked,
        metavar="FIELD=COLUMN,…",
        help="Columns of your tables that have other names, as user_id=CustomerID,item_id=SKU.",
    ),
]
DropIncomplete = Annotated[
    bool,
    typer.Option("--drop-incomplete", help="Leave out rows that lack a value, and count them."),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        callback=time_format_checked,
        help="Format of times in text that are not ISO 8601, such as '%m/%d/%Y %H:%M'.",
    ),
]


def finite(value: float) -> float:
    """Return an option's number; a callback, for click's own ranges let NaN through."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, found {value}")
    return value


def check_creatable(path: Path) -> None:
    """Raise `OSError` unless `path`, and the folders above it that are missing, can be made."""
    above = next(parent for parent in path.absolute().parents if parent.exists())

    if not above.is_dir():
        raise NotADirectoryError(
            f"{path}: expected a folder above it, found the file {above}; choose another path"
        )
    if not os.access(above, os.W_OK):
        raise PermissionError(
            f"{path}: expected a folder that can be written, found {above}; choose another path"
        )


def check_folder(path: Path) -> None:
    """Raise `OSError` unless a folder is at `path`, or can be made there."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: expected a folder, found a file; choose another path")
    check_creatable(path)


def check_new(path: Path) -> None:
    """Raise `OSError` unless nothing is at `path` and something can be made there."""
    if path.exists():
        raise FileExistsError(
            f"{path}: expected nothing there yet; remove it or choose another path"
        )
    check_creatable(path)


def check_file(path: Path) -> None:
    """Raise `OSError` unless a file is at `path`, or can be made there."""
    if path.is_dir():
        raise IsADirectoryError(
            f"{path}: expected the name of a file, found a folder; choose another path"
        )
    check_creatable(path)
