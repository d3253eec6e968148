"""The manifest: the one file of a bundle that names, measures and describes all others.

Refuses to open any file but its own. `docs/BUNDLE.md` is the reader's view of this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sanderling.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_POOL = 10_000
FILES = (
    "encoder.onnx",
    "tokenizer.json",
    "policy.safetensors",
    "items.safetensors",
    "catalog.jsonl",
    "golden.json",
)

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unknown fields, NaN, and booleans in a number's place are refused."""


class FileEntry(_Strict, frozen=True):
    """The exact length in bytes and the SHA-256 of one file."""

    length: Natural
    sha256: Sha256


class Sizes(_Strict, frozen=True):
    """Items n, item dimension d, state channels c, text dimension t, and the longest text in tokens."""

    items: Positive
    dim: Positive
    state: Positive
    text: Positive
    max_tokens: Annotated[int, msgspec.Meta(ge=8, le=8192)]


class Exploration(_Strict, frozen=True, omit_defaults=True):
    """How the device explores: the scheme, and the M best items (`pool`) among which it draws.

    `epsilon` is the share of slots (`sequential`) or slates (`mixture`) that explore, `temperature` that of `softmax`.
    The first `guarded` slots always show the best items. Once a user was shown `daily` explored slots on one day (UTC),
    that user's further slates of the day are greedy.
    """

    scheme: Literal["sequential", "mixture", "softmax"] = "sequential"
    epsilon: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.1
    pool: Annotated[int, msgspec.Meta(ge=1, le=MAX_POOL)] = 50
    temperature: Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)] = 1.0
    guarded: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    daily: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class Lineage(_Strict, frozen=True):
    """Where the policy came from: the release it was learned from, the log's window in seconds, the data's hash."""

    parent: Natural
    log_from: int
    log_to: int
    data_sha256: Sha256


class Manifest(_Strict, frozen=True):
    """What a bundle is. `kinds` names the kinds of event in the order of the policy's kind table; the first stands
    for every unknown kind. `reports` carries the figures of judge and gate, for people; no code reads them."""

    app: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    release: Positive
    created: Natural
    min_engine: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]
    sizes: Sizes
    files: dict[str, FileEntry]
    exploration: Exploration
    kinds: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    lineage: Lineage
    reports: dict[str, Any] = {}
    schema: Literal[1] = 1


_decoder = msgspec.json.Decoder(Manifest)


def parse(data: bytes) -> Manifest:
    """Read a manifest; raise `BundleError` with the path of the first fault."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST}: expected at most {MAX_MANIFEST_BYTES} bytes, found {len(data)}"
        )
    try:
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{MANIFEST}: {error}") from error
    if set(manifest.files) != set(FILES):
        odd = sorted(set(manifest.files) ^ set(FILES))
        raise BundleError(
            f"{MANIFEST}: expected exactly the files {', '.join(FILES)}; missing or not allowed: {odd}"
        )
    return manifest


def read(folder: Path) -> Manifest:
    """Read the manifest of the bundle in `folder`; raise `BundleError` when there is none or it is malformed."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"expected a bundle with a {MANIFEST} in {folder}, found no plain file of that name"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"expected a bundle with a {MANIFEST} in {folder}: {error.strerror or error}"
        ) from error
    return parse(data)


def dump(manifest: Manifest) -> bytes:
    """Return the manifest's bytes, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def engine_version_fault(manifest: Manifest, version: str) -> str | None:
    """Return why an engine of this version may not open the bundle, or None."""
    needed = tuple(int(part) for part in manifest.min_engine.split("."))
    found = tuple(int(part) for part in version.split(".")[:3])
    if found >= needed:
        return None
    return f"{MANIFEST}: min_engine: expected an engine of at least {manifest.min_engine}, found {version}: update the app"
