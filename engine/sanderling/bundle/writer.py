"""Writes a bundle: files first, the manifest last, everything flushed to the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import FileEntry, Manifest
from sanderling.bundle.reader import file_hash, id_hash
from sanderling.runtime.files import flush_folder

READABLE = 0o644


def write_items(
    folder: Path,
    rows: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    records: Iterable[Mapping[str, Any]],
    newcomers: Sequence[int] | NDArray[np.int64] = (),
) -> None:
    """Write items.safetensors and catalog.jsonl.

    rows int8 [n, d], scale and bias float32 [n]; `records` are the n catalog entries in the same
    order, each with an `id`; `newcomers` the rows of items with few impressions, ascending.
    """
    hashes = np.empty(len(rows), np.uint64)
    offset = np.zeros(len(rows) + 1, np.int64)
    with (folder / "catalog.jsonl").open("wb") as file:
        for row, record in enumerate(records):
            hashes[row] = id_hash(record["id"])
            offset[row + 1] = offset[row] + file.write(msgspec.json.encode(record) + b"\n")
    order = np.argsort(hashes, kind="stable")
    tensors: dict[str, NDArray[Any]] = {
        "rows": np.ascontiguousarray(rows, np.int8),
        "scale": np.ascontiguousarray(scale, np.float32),
        "bias": np.ascontiguousarray(bias, np.float32),
        "offset": offset,
        "id_hash": hashes[order],
        "id_row": order.astype(np.int32),
    }
    if len(newcomers):
        tensors["newcomers"] = np.asarray(newcomers, np.int32)
    save_file(tensors, folder / "items.safetensors")


def write_manifest(folder: Path, **fields: Any) -> Manifest:
    """Write and return the manifest of the files in `folder`, and flush the folder.

    All files become readable by everyone: the process that opens a bundle may run as another user.
    Raises `BundleError` where a reader would reject the manifest.
    """
    files = {
        name: FileEntry((folder / name).stat().st_size, file_hash(folder / name))
        for name in (*manifests.FILES, *manifests.OPTIONAL_FILES)
        if name in manifests.FILES or (folder / name).exists()
    }
    manifest = Manifest(files=files, **fields)
    data = manifests.dump(manifest)
    manifests.parse(data)  # msgspec checks ranges only when it decodes
    (folder / manifests.MANIFEST).write_bytes(data)
    for path in folder.iterdir():
        path.chmod(READABLE)
    flush_folder(folder)
    return manifest
