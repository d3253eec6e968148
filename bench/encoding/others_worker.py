"""Peers that need packages of their own; run by the Python of the peers' environment.

    others_worker.py MODEL FLOAT.onnx TEXTS.json TIMED.json WEIGHT_ONLY.onnx OTHERS.npz

MODEL is the language model's folder, with its tokenizer. Writes WEIGHT_ONLY.onnx (onnxruntime's
MatMulNBits), and OTHERS.npz: for model2vec (distilled from MODEL) and fastembed (FLOAT.onnx) the
vectors of the texts, and the microseconds of each timed text, tokenization included.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 10


def main(model: str, plain: str, texts: str, timed: str, weights: str, others: str) -> None:
    """Write the two files."""
    weight_only(plain, Path(weights))
    all_texts = json.loads(Path(texts).read_text())
    timed_texts = json.loads(Path(timed).read_text())
    static, static_bytes = model2vec(model)
    encoders = {
        "model2vec": static,
        "fastembed": fastembed(model, plain, Path(others).with_suffix("")),
    }

    arrays: dict[str, Any] = {"model2vec, bytes": static_bytes}
    for name, encode in encoders.items():
        arrays[name] = np.stack([encode(text) for text in all_texts])
        arrays[f"{name}, us"] = times(encode, timed_texts)
    np.savez(others, **arrays)


def weight_only(source: str, path: Path) -> None:
    """Write the graph whose multiplications have 8-bit weights in blocks of 128."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=128, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))


def model2vec(model: str) -> tuple[Callable[[str], Any], int]:
    """Return the encoder of a static model, a mean of token vectors, and its table's bytes."""
    from model2vec.distill import distill

    static = distill(model, pca_dims=256)
    return (lambda text: static.encode([text])[0]), static.embedding.nbytes


def fastembed(model: str, plain: str, folder: Path) -> Callable[[str], Any]:
    """Return fastembed's encoder on the float graph; it pools and normalizes by itself."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder.mkdir(exist_ok=True)
    for path in Path(model).glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(plain, folder / "model.onnx")
    TextEmbedding.add_custom_model(
        model="bench/minilm",
        pooling=PoolingType.DISABLED,
        normalization=True,
        sources=ModelSource(hf="bench/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    loaded = TextEmbedding("bench/minilm", specific_model_path=str(folder), threads=1)
    return lambda text: next(iter(loaded.embed([text])))


def times(encode: Callable[[str], Any], texts: list[str]) -> Any:
    """Return microseconds, float64 [rounds * texts]."""
    spent = []
    for text in texts * (ROUNDS + 1):
        start = time.perf_counter()
        encode(text)
        spent.append((time.perf_counter() - start) * 1e6)
    return np.array(spent[len(texts) :])


main(*sys.argv[1:])
