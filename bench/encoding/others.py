"""Peers in an environment of their own, `.bench-encode-peers/`, which the first run makes (a minute).

It sees the packages of the project's environment, and has model2vec, fastembed and onnx-ir beside them. Refuses to know
ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.policy.language_model import MINILM, resolve

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".bench-encode-peers"
PACKAGES = ["model2vec[distill]", "scikit-learn", "fastembed", "onnx-ir"]


def run(plain: Path, texts: Sequence[str], timed: Sequence[str], folder: Path) -> dict[str, NDArray[Any]]:
    """Return `model2vec` and `fastembed` float32 [n, t], with microseconds under `NAME, us`; kept in the folder."""
    digest = zlib.crc32("\n".join([*texts, *timed]).encode())
    found = folder / f"others-{digest:08x}.npz"
    if not found.exists():
        interpreter = _environment()
        (folder / "texts.json").write_text(json.dumps(list(texts)))
        (folder / "timed.json").write_text(json.dumps(list(timed)))
        worker = Path(__file__).with_name("others_worker.py")
        given = [
            resolve(MINILM),
            plain,
            folder / "texts.json",
            folder / "timed.json",
            folder / "weight_only.onnx",
            found,
        ]
        subprocess.run([str(part) for part in (interpreter, worker, *given)], check=True, stdout=sys.stderr)
    with np.load(found) as arrays:
        return dict(arrays)


def _environment() -> Path:
    interpreter = HOME / "bin" / "python"
    if not interpreter.exists():
        venv.create(HOME, with_pip=True)
        packages = next(HOME.glob("lib/python*/site-packages"))
        (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        command = [str(interpreter), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *PACKAGES]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return interpreter
