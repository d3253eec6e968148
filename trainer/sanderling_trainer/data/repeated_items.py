"""One row for each item of a table that has several, such as a log of sales with descriptions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sanderling_trainer.data.columns import codes, one_piece
from sanderling_trainer.data.python_values import UNREADABLE, python_values

log = logging.getLogger("sanderling")


def merge_rows(name: str, table: pa.Table, ids: pa.Array, texts: Sequence[str]) -> pa.Table:
    """Return one row for each id, in order of first appearance; the table itself if none repeats.

    Of the columns `texts` an item has its most frequent value, the first of equally frequent ones.
    Any other column is an item's only if it has one value in all of the item's rows; it is left out
    otherwise, for it belongs to the event. Empty cells do not count.
    """
    item, unique = codes(ids)
    if len(unique) == len(table):
        return table

    merged = {}
    varying = []
    for column_name in table.column_names:
        column = table.column(column_name)
        value = _codes_of(name, column_name, column)
        if column_name in texts:
            row, several = _most_frequent(item, value, len(unique))
            if several:
                log.warning(
                    "%s: items with several values of %s, of which the most frequent is taken: %s",
                    name,
                    column_name,
                    f"{several:,}",
                )
        else:
            row = _first(item, value, len(unique))
            if _varies(item, value, row):
                varying.append(column_name)
                continue
        merged[column_name] = column.take(pa.array(row, mask=row < 0))
    if varying:
        log.warning("%s: left out %s: the rows of an item differ in it", name, ", ".join(varying))
    return pa.table(merged)


def _codes_of(name: str, column_name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return int64 codes [n] of a column's values, -1 where there is none."""
    try:
        value, values = codes(one_piece(column))
    except (*UNREADABLE, pa.ArrowNotImplementedError):  # such as lists
        found = python_values(name, column_name, column)
        texts = [None if cell is None else repr(cell) for cell in found]
        value, values = codes(pa.array(texts, pa.string()))
    empty = [code for code, found in enumerate(values) if found == ""]
    return np.where(np.isin(value, empty), -1, value)


def _most_frequent(item: np.ndarray, value: np.ndarray, items: int) -> tuple[np.ndarray, int]:
    """Return the row int64 [items] of each item's most frequent value, -1 for none, and how many
    items have several values.
    """
    given = np.flatnonzero(value >= 0)
    n_values = int(value.max(initial=0)) + 1
    pairs = item[given] * n_values + value[given]
    found, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    owner = found // n_values
    order = np.lexsort((first, -counts, owner))
    owners, start, values = np.unique(owner[order], return_index=True, return_counts=True)
    row = np.full(items, -1, np.int64)
    row[owners] = given[first[order][start]]
    return row, int((values > 1).sum())


def _first(item: np.ndarray, value: np.ndarray, items: int) -> np.ndarray:
    """Return the first row int64 [items] in which each item has a value, -1 for none."""
    given = np.flatnonzero(value >= 0)
    owners, first = np.unique(item[given], return_index=True)
    row = np.full(items, -1, np.int64)
    row[owners] = given[first]
    return row


def _varies(item: np.ndarray, value: np.ndarray, row: np.ndarray) -> bool:
    """Return whether an item has two values."""
    given = value >= 0
    return bool((value[row[item[given]]] != value[given]).any())
