"""Vectors of items, such as those of images: a column of the items table, or a file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sanderling.errors import TableError
from sanderling.tables import cells
from sanderling_trainer.data.files import SourceTable

Vectors = NDArray[np.float32]


def vector_column(items: SourceTable, name: str) -> Vectors:
    """Return a column of lists of numbers as float32 [n, w], rows of NaN where it is empty.

    Raises `TableError` for another type, and for a list of another length than the first one.
    """
    column = items.table.column(name).combine_chunks()
    kind = column.type
    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if not is_list or not (pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type)):
        raise TableError(
            f"{items.name}, column `{name}`: expected lists of numbers, as the schema declares a"
            f" vector, found the type {kind}; store lists in Parquet, or name a `file` of vectors"
        )
    lengths = np.array(pc.fill_null(pc.list_value_length(column), 0), np.int64)
    present = np.flatnonzero(lengths)
    width = int(lengths[present[0]]) if len(present) else 0
    for row in present[lengths[present] != width]:
        expected = f"a list of {width} numbers, as in the rows before"
        raise cells.fault(*items.place(int(row)), name, expected, f"a list of {lengths[row]}")
    vectors = np.full((len(lengths), width), np.nan, np.float32)
    flat = column.filter(pa.array(lengths > 0)).flatten()
    vectors[present] = np.array(flat.fill_null(np.nan), np.float32).reshape(-1, width)
    return vectors


def read_vectors(items: SourceTable, name: str, path: Path) -> Vectors:
    """Return the vectors of items from a file, float32 [n, w], rows of NaN for items without one.

    `.npy` and `.safetensors` have a row for each item, in the order of the items table; of several
    tensors the one of the attribute's name counts. `.parquet` has the columns `item_id` and the
    attribute's name.

    Raises `TableError` for another file, and for another number of rows.
    """
    n = items.table.num_rows
    try:
        if path.suffix == ".parquet":
            return _by_id(items, name, path)
        found = _array(name, path)
    except (OSError, ValueError, SafetensorError, pa.ArrowException) as error:
        raise TableError(f"{path}: expected vectors of items, found: {error}") from error
    if found.ndim != 2 or len(found) != n or found.dtype.kind not in "fiu":
        raise TableError(
            f"{path}: expected numbers of the shape [{n}, width], a row for each item of"
            f" {items.name}, found {found.dtype} {list(found.shape)}"
        )
    return found.astype(np.float32)


def _array(name: str, path: Path) -> NDArray:
    if path.suffix == ".npy":
        found: NDArray = np.load(path, allow_pickle=False)
        return found
    if path.suffix != ".safetensors":
        raise ValueError("another extension than .npy, .safetensors or .parquet")
    tensors = load_file(path)
    if name not in tensors and len(tensors) != 1:
        raise ValueError(f"no tensor {name} among {', '.join(sorted(tensors))}")
    return tensors[name] if name in tensors else next(iter(tensors.values()))


def _by_id(items: SourceTable, name: str, path: Path) -> Vectors:
    table = pq.read_table(path)
    missing = {"item_id", name} - set(table.column_names)
    if missing:
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    source = SourceTable(str(path), table, lambda: [(str(path), table.num_rows)])
    given = vector_column(source, name)
    row_of = {str(id): row for row, id in enumerate(table.column("item_id").to_pylist())}
    ids = items.table.column("item_id").to_pylist()
    rows = np.array([row_of.get(id, -1) for id in ids], np.int64)
    vectors = np.full((len(rows), given.shape[1]), np.nan, np.float32)
    vectors[rows >= 0] = given[rows[rows >= 0]]
    return vectors
