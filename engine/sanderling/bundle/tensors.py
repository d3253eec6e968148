"""Named tensors mapped straight from a safetensors file, without a copy.

Refuses to know what the tensors mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.errors import BundleError

MAX_HEADER_BYTES = 1024 * 1024
_DTYPES = {"I8": np.int8, "I32": np.int32, "I64": np.int64, "U64": np.uint64, "F32": np.float32}

Tensors = dict[str, NDArray[Any]]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def map_tensors(path: Path) -> Tensors:
    """Map every tensor of a safetensors file read-only; raise `BundleError` when the header is not sound."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise BundleError(
                    f"{path.name}: expected a header of 2 to {MAX_HEADER_BYTES} bytes, found {length}"
                )
            header = msgspec.json.decode(file.read(length), type=dict[str, Any])
        header.pop("__metadata__", None)
        entries = {name: msgspec.convert(entry, _Entry) for name, entry in header.items()}
        data = (
            np.memmap(path, mode="r", dtype=np.uint8, offset=8 + length)
            if size > 8 + length
            else np.empty(0, np.uint8)
        )
    except (OSError, msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BundleError(f"{path.name}: expected a safetensors file: {error}") from error
    return {name: _view(path.name, name, entry, data) for name, entry in entries.items()}


def _view(file: str, name: str, entry: _Entry, data: NDArray[np.uint8]) -> NDArray[Any]:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        raise BundleError(
            f"{file}: {name}: expected a dtype of {', '.join(_DTYPES)}, found {entry.dtype}"
        )
    start, stop = entry.data_offsets
    if any(side < 0 for side in entry.shape):
        raise BundleError(f"{file}: {name}: expected sides of at least 0, found {entry.shape}")
    expected = int(np.prod(entry.shape, dtype=object)) * np.dtype(dtype).itemsize
    if not 0 <= start <= stop <= data.size or stop - start != expected:
        raise BundleError(
            f"{file}: {name}: expected {expected} bytes inside the file, found {start}:{stop}"
        )
    try:
        return np.asarray(data[start:stop]).view(dtype).reshape(entry.shape)
    except (ValueError, OverflowError) as error:
        raise BundleError(
            f"{file}: {name}: expected a shape that an array can have: {error}"
        ) from error


def expect(
    tensors: Tensors, file: str, name: str, dtype: type, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return one tensor; raise `BundleError` when it is absent or of another dtype or shape."""
    found = tensors.get(name)
    if found is None:
        raise BundleError(f"{file}: expected a tensor {name}, found {sorted(tensors)}")
    if found.dtype != dtype or found.shape != shape:
        wanted = np.dtype(dtype).name
        raise BundleError(
            f"{file}: {name}: expected {wanted} {list(shape)}, found {found.dtype} {list(found.shape)}"
        )
    return found
