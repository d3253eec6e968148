"""Reading a policy checkpoint as plain files. Refuses to know the trainer's classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by name, `settings` as config.json says, and the items' texts and records in the order of the rows."""

    folder: Path
    settings: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    texts: list[str]
    records: list[dict[str, Any]]

    @property
    def encoder(self) -> Path:
        """The language model's Hugging Face folder."""
        return self.folder / "encoder"


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint; raise `FileNotFoundError` naming what is missing."""
    missing = [
        name
        for name in ("encoder", "policy.safetensors", "config.json", "items.parquet")
        if not (folder / name).exists()
    ]
    if missing:
        raise FileNotFoundError(f"expected a policy checkpoint in {folder}; missing: {', '.join(missing)}")
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
    )
