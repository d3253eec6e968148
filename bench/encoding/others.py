"""Peers in an environment of their own, `.bench-encode-peers/`, made by the first run (a minute).

It sees the packages of the project's environment, and has model2vec, fastembed and onnx-ir beside
them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.environments import interpreter_of
from sanderling_trainer.policy.model.language_model_files import MINILM, resolve

PACKAGES = ["model2vec[distill]", "scikit-learn", "fastembed", "onnx-ir"]


def run(
    plain: Path, texts: Sequence[str], timed: Sequence[str], folder: Path
) -> dict[str, NDArray[Any]]:
    """Return `model2vec` and `fastembed` float32 [n, t], with microseconds under `NAME, us`.

    The result is cached in the folder, by the texts.
    """
    digest = zlib.crc32("\n".join([*texts, *timed]).encode())
    result = folder / f"others-{digest:08x}.npz"
    if not result.exists():
        interpreter = interpreter_of(".bench-encode-peers", PACKAGES)
        (folder / "texts.json").write_text(json.dumps(list(texts)))
        (folder / "timed.json").write_text(json.dumps(list(timed)))
        worker = Path(__file__).with_name("others_worker.py")
        arguments = [
            resolve(MINILM),
            plain,
            folder / "texts.json",
            folder / "timed.json",
            folder / "weight_only.onnx",
            result,
        ]
        subprocess.run(
            [str(part) for part in (interpreter, worker, *arguments)], check=True, stdout=sys.stderr
        )
    with np.load(result) as arrays:
        return dict(arrays)
