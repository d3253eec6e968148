"""Reads a policy checkpoint as plain files, without the trainer's classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sanderling.bundle.columns import AttributeType
from sanderling.errors import SanderlingError
from sanderling.runtime.files import write_durably

VECTORS = "vectors.safetensors"
"""The file of items' vectors, by attribute; absent without any."""


@dataclass(frozen=True)
class Checkpoint:
    """A policy checkpoint in memory; texts and records stand in the order of the item rows."""

    folder: Path

    settings: dict[str, Any]
    """The contents of config.json."""

    tensors: dict[str, NDArray[np.float32]]
    """The policy's tensors by name."""

    texts: list[str]
    """Each item's text, as the language model read it."""

    records: list[dict[str, Any]]
    """Each item's record: id, title and attributes."""

    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By attribute of type `vector` float32 [n, w], rows of NaN where it is missing."""

    def newcomers(self) -> NDArray[np.int64]:
        """Return the rows of items with few impressions, ascending: those that are not 0 in the
        tensor `item.newcomer` [n], which may be missing.

        Raises `CheckpointError` where it has another shape.
        """
        flags = self.tensors.get("item.newcomer")
        if flags is None:
            return np.empty(0, np.int64)
        if flags.shape != (len(self.records),):
            raise CheckpointError(
                f"{self.folder}: item.newcomer: expected [{len(self.records)}] flags,"
                f" found {list(flags.shape)}; train it again"
            )
        return np.flatnonzero(flags)

    def attribute_types(self) -> dict[str, AttributeType]:
        """Return the types of the catalog's attributes by name."""
        attributes = self.settings.get("attributes", {})
        return {name: attribute["type"] for name, attribute in attributes.items()}

    def new_item(self, row: int) -> dict[str, Any]:
        """Return what an app would add an item of the catalog with: `text` and attributes."""
        vectors = {
            name: vectors[row].tolist()
            for name, vectors in self.vectors.items()
            if np.isfinite(vectors[row]).all()
        }
        return {**self.records[row], **vectors, "text": self.texts[row]}

    def with_settings(self, changes: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint with some settings of its configuration changed, in memory only."""
        config = {**self.settings["config"], **changes}
        return replace(self, settings={**self.settings, "config": config})

    def write_settings(self) -> None:
        """Write `settings` into the folder's config.json, which has the old or the new ones after a
        crash.
        """
        text = json.dumps(self.settings, indent=1) + "\n"
        write_durably(self.folder / "config.json", text.encode())

    @property
    def encoder(self) -> Path:
        """The language model's Hugging Face folder."""
        return self.folder / "encoder"


class CheckpointError(SanderlingError):
    """A policy checkpoint is damaged, or the folder holds something else."""


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises `FileNotFoundError` naming the missing files, and `CheckpointError` where a file cannot
    be read.
    """
    check_complete(folder)
    with readable(folder):
        table = pq.read_table(folder / "items.parquet").to_pydict()
        records = [
            {"id": id, "title": title, **json.loads(record)}
            for id, title, record in zip(table["id"], table["title"], table["record"], strict=True)
        ]
        return Checkpoint(
            folder,
            json.loads((folder / "config.json").read_text()),
            load_file(folder / "policy.safetensors"),
            table["text"],
            records,
            load_file(folder / VECTORS) if (folder / VECTORS).exists() else {},
        )


def check_complete(folder: Path) -> None:
    """Raise `FileNotFoundError` naming the files of a checkpoint that a folder has not."""
    files = ("encoder", "policy.safetensors", "config.json", "items.parquet")
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected a policy checkpoint, found no {', '.join(missing)};"
            " give the folder that `sanderling train` wrote"
        )


def read_lineage(folder: Path) -> tuple[str, int]:
    """Return a checkpoint's app and release number, without reading its tensors.

    Raises `FileNotFoundError` and `CheckpointError` as `read` does.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected a policy checkpoint, found no config.json;"
            " give the folder that `sanderling train` wrote"
        )
    with readable(folder):
        settings = json.loads(path.read_bytes())
        return str(settings["app"]), int(settings["release"])


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what the readers of JSON, Parquet and tensors raise into `CheckpointError`."""
    try:
        yield
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected a policy checkpoint, found files that cannot be read:"
            f" {type(error).__name__}: {error}; train it again or take a backup"
        ) from error
