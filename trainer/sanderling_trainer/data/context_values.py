"""The declared features of a log's contexts: columns such as hour, device or place."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa

from sanderling_trainer.data.attribute_values import typed_values
from sanderling_trainer.data.columns import Columns
from sanderling_trainer.data.schema import Attributes

Values = dict[str, dict[str, object]]


def with_values(columns: Columns, texts: pa.Array, declared: Attributes) -> tuple[pa.Array, Values]:
    """Return a key for each row's context, null for none, and by key the values of its features.

    Without declared features the key is the text. Features that the table lacks are missing.
    Raises `TableError` for a value of another type than the declared one.
    """
    source = columns.source
    found = [name for name in declared if name in source.table.column_names]
    if not found:
        return texts, {}
    if columns.rows is not None:
        source = replace(source, table=source.table.take(columns.rows), rows=columns.rows)
    cells = {name: typed_values(source, name, declared[name]) for name in found}

    values: Values = {}
    keys: list[str | None] = []
    for row, text in enumerate(texts.to_pylist()):
        own = {name: cells[name][row] for name in found if cells[name][row] is not None}
        key = json.dumps([text or "", own]) if text or own else None
        keys.append(key)
        if key is not None:
            values[key] = own
    return pa.array(keys, pa.string()), values


def values_of(contexts: list[str], values: Values) -> tuple[list[str], list[dict[str, object]]]:
    """Return the texts of contexts, given as keys of `with_values`, and their features."""
    if not values:
        return contexts, []
    return [json.loads(key)[0] for key in contexts], [values[key] for key in contexts]
