"""A bundle of titles whose items are where their texts are, as those that nobody has seen yet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from bench.serving.random_bundle import write_random_bundle
from sanderling.bundle import writer
from sanderling.bundle.manifest import Manifest, Sizes
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.text_encoder import TextEncoder

MAX_TOKENS = 64
DIM = 64
MAX_ENCODED = 4000


def write_text_bundle(folder: Path, titles: Sequence[str], encoder: Path, dim: int = DIM) -> None:
    """Write a bundle with the encoder of a folder, whose item vectors are the texts' projections.

    The projection keeps the principal components of the titles' vectors. Beyond `MAX_ENCODED`
    titles, the items lie around the vectors of these. Biases and the state's policy are random.
    """
    records = [{"id": f"item-{row}", "title": title} for row, title in enumerate(titles)]
    write_random_bundle(folder, len(titles), dim, state=192, records=records)
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(encoder / name, folder / name)

    loaded = TextEncoder(encoder, _width(encoder), MAX_TOKENS)
    vectors = np.stack([loaded.encode(title) for title in titles[:MAX_ENCODED]])
    width = vectors.shape[1]
    _, components = np.linalg.eigh(np.cov(vectors.T))
    project = components[:, ::-1].T[:dim].astype(np.float32)

    rng = np.random.default_rng(0)
    items = vectors @ project.T
    if len(titles) > MAX_ENCODED:
        items = items[rng.integers(0, MAX_ENCODED, len(titles))]
        items += rng.normal(scale=items.std(), size=items.shape)
    rows, scale = quantize_rows(items.astype(np.float32))
    bias = (0.1 * rng.standard_normal(len(titles))).astype(np.float32)
    writer.write_items(folder, rows, scale, bias, records)
    policy = load_file(folder / "policy.safetensors")
    shape = (dim, width)
    policy["item.project"] = np.ascontiguousarray(project)
    policy["context.project"] = (rng.standard_normal(shape) / width**0.5).astype(np.float32)
    save_file(policy, folder / "policy.safetensors")

    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    names = set(manifest.__struct_fields__) - {"files", "schema", "sizes"}
    sizes = Sizes(items=len(titles), dim=dim, state=192, text=width, max_tokens=MAX_TOKENS)
    writer.write_manifest(folder, sizes=sizes, **{name: getattr(manifest, name) for name in names})


def _width(encoder: Path) -> int:
    """Return the number of dimensions that an encoder gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(encoder / "encoder.onnx")
    return int(session.get_outputs()[0].shape[1])
