"""Opens a bundle: checks versions, lengths and headers, and maps the files without copying them.

`verify` adds the checks that cost a full read: hashes, finiteness, and the order of the id table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle import columns
from sanderling.bundle import manifest as manifests
from sanderling.bundle.columns import AttributeColumns
from sanderling.bundle.features import CONTEXT, ITEM, FeatureTensors
from sanderling.bundle.manifest import MAX_ID, Manifest
from sanderling.bundle.tensors import Tensors, expect, map_tensors
from sanderling.errors import BundleError
from sanderling.version import __version__


@dataclass(frozen=True)
class Items:
    """The tensors of items.safetensors: item i has the vector `rows[i] * scale[i]`."""

    rows: NDArray[np.int8]
    """[n, d]"""

    scale: NDArray[np.float32]
    """[n]"""

    bias: NDArray[np.float32]
    """[n], added to an item's score."""

    offset: NDArray[np.int64]
    """[n + 1]: item i has the bytes `offset[i]` to `offset[i + 1]` of catalog.jsonl."""

    id_hash: NDArray[np.uint64]
    """[n], ascending."""

    id_row: NDArray[np.int32]
    """[n]: the row of each hash."""

    newcomers: NDArray[np.int32]
    """The rows of items with few impressions in the fleet, ascending."""


@dataclass(frozen=True)
class Bundle:
    """One opened bundle. Immutable: an update opens another."""

    folder: Path
    manifest: Manifest
    items: Items
    policy: Tensors
    catalog: NDArray[np.uint8]

    columns: AttributeColumns | None
    """The attributes as typed columns, in bundles that have them."""

    item_features: FeatureTensors | None
    """How typed attributes move an item's vector, in bundles of catalogs with attributes."""

    context_features: FeatureTensors | None
    """How declared context features move the user vector, in bundles that have them."""

    @classmethod
    def open(cls, folder: str | Path, verify: bool = False) -> Bundle:
        """Return the bundle in `folder`, mapped.

        Raises `BundleError` when it is incomplete or malformed, or, with `verify`, was altered.
        """
        folder = Path(folder)
        manifest = manifests.read(folder)
        fault = manifests.engine_version_fault(manifest, __version__)
        if fault:
            raise BundleError(fault)
        _check_files(folder, manifest)
        if verify:
            _check_hashes(folder, manifest)
        policy, item_features, context_features = _policy(folder, manifest)
        bundle = cls(
            folder=folder,
            manifest=manifest,
            items=_items(folder, manifest),
            policy=policy,
            catalog=np.asarray(np.memmap(folder / "catalog.jsonl", mode="r", dtype=np.uint8)),
            columns=_columns(folder, manifest),
            item_features=item_features,
            context_features=context_features,
        )
        if bundle.items.offset[0] != 0 or bundle.items.offset[-1] != bundle.catalog.size:
            raise BundleError(
                f"items.safetensors: offset: expected to span the {bundle.catalog.size} bytes "
                f"of catalog.jsonl"
            )
        if verify:
            _check_values(bundle)
        return bundle

    def record(self, row: int) -> dict[str, Any]:
        """Return the catalog's entry of one row: id, title, and attributes.

        Raises `BundleError` when it is malformed.
        """
        start = int(self.items.offset[row])
        stop = int(self.items.offset[row + 1])
        try:
            entry = msgspec.json.decode(self.catalog[start:stop].tobytes(), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(f"catalog.jsonl: row {row}: {error}") from error
        id = entry.get("id")
        if not isinstance(id, str) or not 1 <= len(id) <= MAX_ID:
            raise BundleError(
                f"catalog.jsonl: row {row}: id: expected a text of 1 to {MAX_ID} characters,"
                f" found {id!r:.80}"
            )
        return entry

    def find(self, item: str) -> int | None:
        """Return the row of an item id, or None when it is not in the bundle."""
        wanted = id_hash(item)
        position = int(np.searchsorted(self.items.id_hash, wanted))
        # Equal hashes stand side by side: compare the ids in the catalog.
        while position < self.items.id_hash.size and self.items.id_hash[position] == wanted:
            row = int(self.items.id_row[position])
            if self.record(row)["id"] == item:
                return row
            position += 1
        return None

    def find_all(self, items: Sequence[str]) -> list[int]:
        """Return the rows of item ids, -1 for those that are not in the bundle."""
        wanted = np.frombuffer(b"".join(map(_id_digest, items)), "<u8")
        positions = np.searchsorted(self.items.id_hash, wanted)
        within = np.minimum(positions, self.items.id_hash.size - 1)
        rows = np.where(self.items.id_hash[within] == wanted, self.items.id_row[within], -1)
        starts = self.items.offset[rows].tolist()
        stops = self.items.offset[rows + 1].tolist()
        decoder = msgspec.json.Decoder(_Id)
        data = self.catalog.data
        found: list[int] = rows.tolist()
        for i, row in enumerate(found):
            # Equal hashes of other ids, and faults, are for `find`.
            if row >= 0 and not _has_id(decoder, data[starts[i] : stops[i]], items[i]):
                other = self.find(items[i])
                found[i] = -1 if other is None else other
        return found

    def values(self, attribute: str) -> Iterator[Any]:
        """Yield one attribute of every item in the order of the rows, None where it is missing."""
        return (record.get(attribute) for record in self.records())

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield every entry of the catalog in the order of the rows; ids are not checked."""
        decoder = msgspec.json.Decoder(dict[str, Any])
        data = self.catalog.data
        for start, stop in pairwise(self.items.offset.tolist()):
            try:
                yield decoder.decode(data[start:stop])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BundleError(f"catalog.jsonl: bytes {start} to {stop}: {error}") from error

    def ids(self) -> Iterator[str]:
        """Yield every item id in the order of the rows; reads the whole catalog."""
        return (self.record(row)["id"] for row in range(self.manifest.sizes.items))


class _Id(msgspec.Struct):
    """What `find_all` reads of a catalog's entry."""

    id: str


def _has_id(decoder: msgspec.json.Decoder[_Id], entry: memoryview, item: str) -> bool:
    try:
        return decoder.decode(entry).id == item
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def id_hash(item: str) -> np.uint64:
    """Return the hash by which an item id is looked up: its BLAKE2b of 8 bytes, little-endian."""
    return np.uint64(int.from_bytes(_id_digest(item), "little"))


def _id_digest(item: str) -> bytes:
    return hashlib.blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{name}: expected a regular file in {folder}")
        if path.stat().st_size != entry.length:
            raise BundleError(f"{name}: expected {entry.length} bytes, found {path.stat().st_size}")
        if entry.length == 0:
            raise BundleError(f"{name}: expected a file with content, found an empty one")
    extra = sorted(
        {path.name for path in folder.iterdir()} - set(manifest.files) - {manifests.MANIFEST}
    )
    if extra:
        raise BundleError(f"{folder}: expected only the files of the manifest, found also {extra}")


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        actual = file_hash(folder / name)
        if actual != entry.sha256:
            raise BundleError(
                f"{name}: expected the SHA-256 {entry.sha256}, found {actual}: the file was altered"
            )


def _items(folder: Path, manifest: Manifest) -> Items:
    file = "items.safetensors"
    n = manifest.sizes.items
    d = manifest.sizes.dim
    tensors = map_tensors(folder / file)
    return Items(
        rows=expect(tensors, file, "rows", np.int8, (n, d)),
        scale=expect(tensors, file, "scale", np.float32, (n,)),
        bias=expect(tensors, file, "bias", np.float32, (n,)),
        offset=expect(tensors, file, "offset", np.int64, (n + 1,)),
        id_hash=expect(tensors, file, "id_hash", np.uint64, (n,)),
        id_row=expect(tensors, file, "id_row", np.int32, (n,)),
        newcomers=_newcomers(tensors, file, n),
    )


def _newcomers(tensors: Tensors, file: str, n: int) -> NDArray[np.int32]:
    """Return the rows of newcomers; a bundle without the tensor has none."""
    tensor = tensors.get("newcomers")
    if tensor is None:
        return np.empty(0, np.int32)
    if tensor.ndim != 1 or tensor.size > n:
        raise BundleError(
            f"{file}: newcomers: expected at most {n} rows, found shape {list(tensor.shape)}"
        )
    return expect(tensors, file, "newcomers", np.int32, tensor.shape)


def _columns(folder: Path, manifest: Manifest) -> AttributeColumns | None:
    has_columns = columns.FILE in manifest.files
    return columns.read(folder, manifest.sizes.items) if has_columns else None


def policy_shapes(manifest: Manifest, hidden: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the float32 tensors of policy.safetensors with `hidden` hidden units."""
    d = manifest.sizes.dim
    c = manifest.sizes.state
    t = manifest.sizes.text
    return {
        "state.input": (c, d),
        "state.kind": (len(manifest.kinds), c),
        "state.decay": (c,),
        "output.gain": (c,),
        "output.shift": (c,),
        "output.w1": (hidden, c),
        "output.b1": (hidden,),
        "output.w2": (d, hidden),
        "output.b2": (d,),
        "context.project": (d, t),
        "item.project": (d, t),
        "item.bias": (1,),
    }


def _policy(
    folder: Path, manifest: Manifest
) -> tuple[Tensors, FeatureTensors | None, FeatureTensors | None]:
    """Return the tensors that every policy has, and those of features of items and contexts."""
    file = "policy.safetensors"
    tensors = map_tensors(folder / file)
    # The manifest does not give the hidden width; a missing or misshapen b1 fails below against 0.
    bias = tensors.get("output.b1")
    hidden = bias.shape[0] if bias is not None and bias.ndim == 1 else 0
    shapes = policy_shapes(manifest, hidden)
    policy = {
        name: expect(tensors, file, name, np.float32, shape) for name, shape in shapes.items()
    }
    dim = manifest.sizes.dim
    context = FeatureTensors.of(tensors, CONTEXT, dim)
    if context is not None:
        policy["context.feature_project"] = context.project
    policy |= _text_domain(tensors, file, manifest.sizes.text)
    return policy, FeatureTensors.of(tensors, ITEM, dim), context


def _text_domain(tensors: Tensors, file: str, t: int) -> Tensors:
    """Return the tensors that say where the training texts are, none in bundles without them."""
    centroids = tensors.get("text.centroids")
    if centroids is None:
        return {}
    k = centroids.shape[0] if centroids.ndim == 2 else 0
    return {
        "text.centroids": expect(tensors, file, "text.centroids", np.float32, (max(k, 1), t)),
        "text.limits": expect(tensors, file, "text.limits", np.float32, (2,)),
    }


def _check_values(bundle: Bundle) -> None:
    items = bundle.items
    tensors = {"scale": items.scale, "bias": items.bias, **bundle.policy}
    for of, found in ((ITEM, bundle.item_features), (CONTEXT, bundle.context_features)):
        tensors |= found.tensors(of) if found else {}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(f"{name}: expected finite numbers, found NaN or infinity")
    if not (items.scale > 0).all():
        raise BundleError("items.safetensors: scale: expected positive numbers")
    decay = bundle.policy["state.decay"]
    if not ((decay >= 0) & (decay < 1)).all():
        raise BundleError("policy.safetensors: state.decay: expected numbers in [0, 1)")
    if (np.diff(items.offset) <= 0).any():
        raise BundleError("items.safetensors: offset: expected ascending bytes")
    if (items.id_hash[1:] < items.id_hash[:-1]).any():
        raise BundleError("items.safetensors: id_hash: expected ascending hashes")
    if not np.array_equal(np.sort(items.id_row), np.arange(items.id_row.size)):
        raise BundleError("items.safetensors: id_row: expected each row once")
    ends = np.array([-1, items.id_row.size])
    if (np.diff(np.concatenate([ends[:1], items.newcomers, ends[1:]])) <= 0).any():
        raise BundleError("items.safetensors: newcomers: expected ascending rows of items")
    if bundle.columns is not None:
        bundle.columns.check()
    hashes = np.fromiter(
        (id_hash(item) for item in bundle.ids()), np.uint64, count=items.id_row.size
    )
    if not np.array_equal(hashes[items.id_row], items.id_hash):
        raise BundleError(
            "items.safetensors: id_hash: expected the hashes of the ids in catalog.jsonl"
        )
