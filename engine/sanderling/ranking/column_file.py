"""Writes the attributes of a catalog as typed columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sanderling.bundle import columns
from sanderling.bundle.columns import MAX_ATTRIBUTES, AttributeSchema, AttributeType
from sanderling.ranking.attributes import CATEGORIES, make_column, stored_column, type_of

STORED_AS = {"category": CATEGORIES}


def write_columns(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    declared: Mapping[str, AttributeType] | None = None,
) -> None:
    """Write columns.safetensors for the catalog's entries, which are in the order of the rows.

    Types that are not `declared` follow from the values. Beyond 1000 attributes no file is written:
    the device then reads them from the catalog.
    """
    declared = declared or {}
    names = list(dict.fromkeys(name for record in records for name in record if name != "id"))
    names += [name for name in declared if name not in names]
    if len(names) > MAX_ATTRIBUTES:
        return
    schema = []
    stored = []
    for name in names:
        values = [record.get(name) for record in records]
        kind = declared.get(name) or type_of(values, name)
        if kind is None:
            continue
        schema.append(AttributeSchema(name, kind))
        column = None
        if kind not in columns.STORED_ELSEWHERE:
            column = stored_column(make_column(values, STORED_AS.get(kind, kind)))
        stored.append(column)
    columns.write(folder, schema, stored)
