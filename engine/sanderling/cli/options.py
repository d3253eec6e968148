"""Options that commands share, and checks of their values."""

from __future__ import annotations

import math
from datetime import date, datetime
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
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads to compute with.", show_default="as many as there are cores"),
]
Tiny = Annotated[
    bool,
    typer.Option(
        "--tiny", help="Only some slates of the bundle that comes with the engine: seconds."
    ),
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
Why = Annotated[
    bool, typer.Option("--why", help="Say below each printed item why a bundle shows it.")
]


def finite(value: float) -> float:
    """Return an option's number; a callback, for click's own ranges let NaN through."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, found {value}")
    return value
