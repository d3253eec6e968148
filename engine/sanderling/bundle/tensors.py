"""Maps the tensors of a safetensors file into memory, without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.errors import BundleError

MAX_HEADER_BYTES = 1024 * 1024
_DTYPES = {
    "I8": np.int8,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U64": np.uint64,
    "F32": np.float32,
    "F64": np.float64,
}

Tensors = dict[str, NDArray[Any]]


class _HeaderEntry(msgspec.Struct, forbid_unknown_fields=True):
    """The header's description of one tensor; the offsets count from the end of the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def map_tensors(path: Path) -> Tensors:
    """Return every tensor of a safetensors file, mapped read-only, by name.

    Raises `BundleError` when the file cannot be read or its header is malformed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # Checked before anything is allocated: the length comes from the file.
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise BundleError(
                    f"{path.name}: expected a header of 2 to {MAX_HEADER_BYTES} bytes inside the "
                    f"file, found {length}"
                )
            header = msgspec.json.decode(file.read(length), type=dict[str, Any])
        header.pop("__metadata__", None)
        entries = {name: msgspec.convert(entry, _HeaderEntry) for name, entry in header.items()}
        # A file that ends with its header cannot be mapped: mmap rejects empty ranges.
        data = (
            np.memmap(path, mode="r", dtype=np.uint8, offset=8 + length)
            if size > 8 + length
            else np.empty(0, np.uint8)
        )
    except (OSError, msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BundleError(f"{path.name}: expected a safetensors file: {error}") from error
    return {name: _view(path.name, name, entry, data) for name, entry in entries.items()}


def _view(file: str, name: str, entry: _HeaderEntry, data: NDArray[np.uint8]) -> NDArray[Any]:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        raise BundleError(
            f"{file}: {name}: expected a dtype of {', '.join(_DTYPES)}, found {entry.dtype}"
        )
    start, stop = entry.data_offsets
    if any(side < 0 for side in entry.shape):
        raise BundleError(f"{file}: {name}: expected sides of at least 0, found {entry.shape}")
    # As Python integers, since sides from a file may overflow any other.
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
    tensor = tensors.get(name)
    if tensor is None:
        raise BundleError(f"{file}: expected a tensor {name}, found {sorted(tensors)}")
    if tensor.dtype != dtype or tensor.shape != shape:
        raise BundleError(
            f"{file}: {name}: expected {np.dtype(dtype).name} {list(shape)}, "
            f"found {tensor.dtype} {list(tensor.shape)}"
        )
    return tensor
