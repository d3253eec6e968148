"""A small bundle for tests: random items and policy, a real encoder, and its own golden vectors.

The same seed gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from sanderling import Engine
from sanderling.bundle import writer
from sanderling.bundle.golden import Golden, GoldenState, GoldenText
from sanderling.bundle.manifest import Exploration, Lineage, Manifest, Sizes
from sanderling.bundle.reader import Bundle, policy_shapes
from sanderling.ranking.column_file import write_columns
from sanderling.ranking.golden_check import top_after
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.scorer import Scorer
from sanderling.releases.slots import Slots

ENCODER = Path(__file__).parents[1] / "golden"
TEXT = 16
KINDS = ["view", "click", "purchase"]
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


def write_bundle(
    folder: Path,
    release: int = 1,
    items: int = 50,
    dim: int = 16,
    seed: int = 0,
    *,
    state: int = 8,
    decay: tuple[float, float] = (0.5, 0.99),
    newcomers: Sequence[int] = (),
    attributes: Callable[[int], dict[str, Any]] = lambda row: {},
    with_columns: bool = False,
    **fields: Any,
) -> Manifest:
    """Write a complete bundle into a new folder, and return its manifest.

    Items are `item-0`, `item-1`, …, with more `attributes` by row, as columns too if
    `with_columns`; `newcomers` are rows of some; `decay` is the range of the state's decay;
    `fields` go to the manifest.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows, scale = quantize_rows(rng.standard_normal((items, dim)).astype(np.float32))
    bias = (0.1 * rng.standard_normal(items)).astype(np.float32)
    records = (record(i) | attributes(i) for i in range(items))
    writer.write_items(folder, rows, scale, bias, records, newcomers)
    if with_columns:
        write_columns(folder, [record(i) | attributes(i) for i in range(items)])
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(ENCODER / name, folder / name)
    settings: dict[str, Any] = {
        "app": "demo",
        "release": release,
        "created": 1_700_000_000,
        "min_engine": "0.1.0",
        "sizes": Sizes(items=items, dim=dim, state=state, text=TEXT, max_tokens=64),
        "exploration": Exploration(epsilon=0.1, pool=min(20, items)),
        "kinds": KINDS,
        "lineage": Lineage(parent=release - 1, log_from=0, log_to=0, data_sha256="0" * 64),
        **fields,
    }
    _write_policy(folder, settings, rng, decay)
    return _write_golden(folder, settings)


def trying(bundle: Path, state: Path, **options: Any) -> Engine:
    """Open an engine that serves release 2, which is installed but not confirmed yet."""
    write_bundle(state / "bundles" / "2", release=2)
    Slots(state / "bundles").activate(2)
    return Engine.open(bundle, state, **options)


def record(row: int) -> dict[str, Any]:
    """Return the catalog's entry of one row."""
    title = f"{COLOURS[row % len(COLOURS)]} {THINGS[row % len(THINGS)]} {row}"
    return {"id": f"item-{row}", "title": title, "price": row % 90 + 10}


def reseal(folder: Path) -> Manifest:
    """Rewrite the manifest for the changed files of a bundle, so that their hashes are right."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    fields = {
        name: getattr(manifest, name)
        for name in manifest.__struct_fields__
        if name not in ("files", "schema")
    }
    return writer.write_manifest(folder, **fields)


def _write_policy(
    folder: Path, settings: dict[str, Any], rng: np.random.Generator, decay: tuple[float, float]
) -> None:
    shapes = policy_shapes(Manifest(files={}, **settings), hidden=2 * settings["sizes"].state)
    policy = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in shapes.items()
    }
    policy["state.decay"] = rng.uniform(*decay, shapes["state.decay"]).astype(np.float32)
    policy["output.gain"] = rng.uniform(1, 2, shapes["output.gain"]).astype(np.float32)
    save_file(policy, folder / "policy.safetensors")


def _write_golden(folder: Path, settings: dict[str, Any]) -> Manifest:
    """Write the golden answers, which are the bundle's own: it is opened once without any."""
    path = folder / "golden.json"
    path.write_bytes(b"{}")
    writer.write_manifest(folder, **settings)
    scorer = Scorer(Bundle.open(folder))
    texts = [record(0)["title"], "rainy sunday evening", ""]
    histories: list[list[tuple[str, str]]] = [
        [],
        [("item-0", "click")],
        [("item-0", "view"), ("gone", "purchase")],
    ]
    golden = Golden(
        texts=[GoldenText(text, scorer.encoder.encode(text).tolist()) for text in texts],
        states=[GoldenState(events, top_after(scorer, events)) for events in histories],
    )
    path.write_bytes(msgspec.json.encode(golden))
    return writer.write_manifest(folder, **settings)
