"""Which column of a table is which field: by the field's own name, or as `--columns` maps it."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from sanderling.errors import TableError

LOG_REQUIRED = ("user_id", "item_id", "timestamp")
LOG_OPTIONAL = ("reward", "kind", "context")
ITEM_FIELDS = ("item_id", "text", "title")
FIELDS = (*dict.fromkeys((*LOG_REQUIRED, *LOG_OPTIONAL, *ITEM_FIELDS)),)

_ROW_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Return the column of each field from texts such as `user_id=CustomerID,item_id=StockCode`.

    A column's name with a comma is put into double quotes together with its field. Raises
    `ValueError` for anything else, an unknown field, and a field that is given twice.
    """
    columns: dict[str, str] = {}
    for pair in next(csv.reader([",".join(texts)]), []):
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not (field and equals and column):
            raise ValueError(
                f"expected pairs such as user_id=CustomerID,item_id=StockCode, found {pair!r:.80}"
            )
        if field not in FIELDS:
            raise ValueError(
                f"expected one of the fields {', '.join(FIELDS)} before =, found {field!r:.80}"
            )
        if field in columns:
            raise ValueError(f"expected each field once, found {field} twice")
        columns[field] = column
    return columns


def check_fields(fields: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is no field of any table."""
    for field in fields:
        if field not in FIELDS:
            raise ValueError(f"expected one of the fields {', '.join(FIELDS)}, found {field!r:.80}")


def locate(
    table: str,
    found: Sequence[str],
    required: Collection[str],
    optional: Collection[str] = (),
    columns: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return which of the columns found is which field; an optional field that is absent is absent.

    A mapping may be for several tables: where its column is absent, the field's own name counts.
    Raises `TableError` that lists the columns where a required or a mapped one is missing.
    """
    columns = columns or {}
    located = {}
    missing = []
    for field in (*required, *optional):
        if columns.get(field) in found:
            located[field] = columns[field]
        elif field in found:
            located[field] = field
        elif field in required or field in columns:
            missing.append(field)
    if not missing:
        return located

    names = ", ".join(columns.get(field, field) for field in required)
    wanted = ", ".join(columns.get(field, field) for field in missing)
    raise TableError(
        f"{table}: expected the columns {names}, found {', '.join(found)};"
        f" add or rename {wanted}, or name your own, such as --columns"
        f" {','.join(f'{field}=…' for field in missing)}"
    )


def is_row_index(name: str) -> bool:
    """Return whether a column is the row index that pandas writes along when it is not told not to:
    it has no name of its own.
    """
    return _ROW_INDEX.fullmatch(name) is not None
