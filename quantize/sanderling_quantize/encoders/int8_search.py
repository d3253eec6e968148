"""Which int8 form of a student: each recipe is made, timed and compared on this machine; the front is kept.

What counts is the size, the time of one text, and how much of the float student's neighbourhoods is left. Refuses to
know items, policies and the teacher.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sanderling.ranking.text_encoder import SLOW_FUSIONS
from sanderling_quantize.encoders.export import export
from sanderling_quantize.encoders.int8_export import quantize
from sanderling_quantize.encoders.smoothquant import smoothed
from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.tokenization import Tokens
from sanderling_quantize.similarity import neighbours

ROUNDS = 5
SLOWER = 1.2
BITS = {"any": 7, "avx2": 7, "avx512_vnni": 8, "arm64": 8, "wasm": 8}


@dataclass(frozen=True)
class Recipe:
    """`strength` of smoothing (None: none), and how many `outlier` channels go apart: see `smoothed`."""

    strength: float | None
    outlier: int


RECIPES = (Recipe(None, 0), Recipe(0.7, 0), Recipe(0.7, 8), Recipe(0.8, 8))


@dataclass(frozen=True)
class Int8Candidate:
    """One form: its recipe and file, bytes, microseconds for a text (p50), and overlap of 10 nearest with float."""

    recipe: Recipe
    path: Path
    bytes: int
    us: float
    neighbours: float

    def dominates(self, other: Int8Candidate) -> bool:
        """Tell whether this is at least as good in everything and better in something."""
        mine, its = (
            (self.bytes, self.us, -self.neighbours),
            (other.bytes, other.us, -other.neighbours),
        )
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def search(
    student: Student,
    config: Any,
    tokens: Sequence[Tokens],
    judged: Sequence[Tokens],
    folder: Path,
    bits: int,
) -> list[Int8Candidate]:
    """Return the Pareto front of the recipes, the winner first: the best one of those nearly as fast as the fastest.

    Channels are measured on `tokens`, forms compared on `judged`; files go to `folder`; `bits` of a weight are 7 or 8.
    """
    exact = _float(student, judged)
    made = []
    for number, recipe in enumerate(tqdm(RECIPES, desc="int8 forms", unit="form", leave=False)):
        source, target = folder / f"float{number}.onnx", folder / f"form{number}.onnx"
        export(
            student
            if recipe.strength is None
            else smoothed(student, tokens, recipe.strength, recipe.outlier),
            source,
        )
        quantize(source, config, target, bits)
        made.append((recipe, target, session(target)))
    times = _times([one for _, _, one in made], judged)
    found = [
        Int8Candidate(recipe, path, path.stat().st_size, us, neighbours(encode(one, judged), exact))
        for (recipe, path, one), us in zip(made, times, strict=True)
    ]
    front = [one for one in found if not any(other.dominates(one) for other in found)]
    limit = SLOWER * min(one.us for one in front)
    return sorted(front, key=lambda one: (one.us > limit, -one.neighbours))


def session(path: Path, without: Sequence[str] = SLOW_FUSIONS) -> onnxruntime.InferenceSession:
    """Open a graph as the device does: one thread, on the CPU, without some of onnxruntime's fusions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def encode(graph: onnxruntime.InferenceSession, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
    """Return vectors float32 [n, t] of texts, one by one, as the device encodes."""
    return np.stack([graph.run(None, feed(one))[0][0] for one in tokens])


def feed(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """Return the graph's inputs for one text."""
    return {"input_ids": tokens[None], "attention_mask": np.ones_like(tokens)[None]}


def _times(graphs: Sequence[onnxruntime.InferenceSession], tokens: Sequence[Tokens]) -> list[float]:
    """Return the median microseconds a text in each graph's quietest round; the graphs take turns, the first warms."""
    feeds = [feed(one) for one in tokens[:50]]
    spent = np.zeros((ROUNDS + 1, len(graphs), len(feeds)))
    for turn, (at, graph) in itertools.product(range(ROUNDS + 1), enumerate(graphs)):
        for number, one in enumerate(feeds):
            start = time.perf_counter()
            graph.run(None, one)
            spent[turn, at, number] = time.perf_counter() - start
    return [float(us) for us in np.median(spent[1:], 2).min(0) * 1e6]


@torch.inference_mode()
def _float(student: Student, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
    rows = [
        student(torch.from_numpy(one[None]), torch.ones(1, len(one), dtype=torch.int64))
        for one in tokens
    ]
    return torch.cat(rows).numpy()
