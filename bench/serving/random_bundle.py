"""A valid bundle of any size, of random items and a random policy.

The same seed gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from sanderling.bundle import writer
from sanderling.bundle.manifest import Exploration, Lineage, Manifest, Sizes
from sanderling.bundle.reader import policy_shapes
from sanderling.ranking.quantization import quantize_rows

ENCODER = Path(__file__).parents[2] / "tests" / "golden"
"""Where the files of a small encoder lie, 30 kB, of the format of a distilled one."""

TEXT_DIM = 16
COLOURS = ["red", "green", "blue", "black", "white"]
THINGS = [
    "trail shoe",
    "warm jacket",
    "camping tent",
    "mystery novel",
    "jazz album",
    "film about the sea",
    "coffee",
]


def write_random_bundle(
    folder: Path,
    items: int,
    dim: int = 16,
    *,
    state: int = 8,
    kinds: tuple[str, ...] = ("view", "click", "purchase"),
    exploration: Exploration | None = None,
    records: Iterable[dict[str, Any]] | None = None,
) -> None:
    """Write a bundle without golden answers into a new folder. Items are `item-0`, `item-1`, …,
    unless their `records` are given.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    rows, scale = quantize_rows(rng.standard_normal((items, dim)).astype(np.float32))
    bias = (0.1 * rng.standard_normal(items)).astype(np.float32)
    writer.write_items(folder, rows, scale, bias, records or map(_record, range(items)))

    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(ENCODER / name, folder / name)

    fields: dict[str, Any] = {
        "app": "bench",
        "release": 1,
        "created": 1_700_000_000,
        "min_engine": "0.1.0",
        "sizes": Sizes(items=items, dim=dim, state=state, text=TEXT_DIM, max_tokens=64),
        "exploration": exploration or Exploration(epsilon=0.1, pool=min(20, items)),
        "kinds": list(kinds),
        "lineage": Lineage(parent=0, log_from=0, log_to=0, data_sha256="0" * 64),
    }
    shapes = policy_shapes(Manifest(files={}, **fields), hidden=2 * state)
    save_file(_random_policy(shapes, rng), folder / "policy.safetensors")
    (folder / "golden.json").write_bytes(b"{}")
    writer.write_manifest(folder, **fields)


def reseal(folder: Path) -> Manifest:
    """Rewrite the manifest for the changed files of a bundle, and return it."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    names = set(manifest.__struct_fields__) - {"files", "schema"}
    return writer.write_manifest(folder, **{name: getattr(manifest, name) for name in names})


def _record(row: int) -> dict[str, Any]:
    title = f"{COLOURS[row % len(COLOURS)]} {THINGS[row % len(THINGS)]} {row}"
    return {"id": f"item-{row}", "title": title, "price": row % 90 + 10}


def _random_policy(
    shapes: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    policy = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in shapes.items()
    }
    policy["state.decay"] = rng.uniform(0.5, 0.99, shapes["state.decay"]).astype(np.float32)
    policy["output.gain"] = rng.uniform(1, 2, shapes["output.gain"]).astype(np.float32)
    return policy
