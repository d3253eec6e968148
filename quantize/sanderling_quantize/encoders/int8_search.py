"""Chooses the int8 form of a student: makes every recipe, measures it here, keeps the Pareto front.

What counts is the size, the time of one text, and how much of the float student's neighbourhoods is
left.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sanderling.ranking.text_encoder import SLOW_FUSIONS, import_onnxruntime
from sanderling_quantize.encoders.export import export
from sanderling_quantize.encoders.int8_export import quantize
from sanderling_quantize.encoders.smoothquant import smooth
from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.tokenization import Tokens
from sanderling_quantize.similarity import cosine, neighbour_overlap

if TYPE_CHECKING:
    import onnxruntime

ROUNDS = 5
TIMED_TEXTS = 50
NEARLY_AS_FAST = 1.2
BITS = {"any": 7, "avx2": 7, "avx512_vnni": 8, "arm64": 8, "wasm": 8}


@dataclass(frozen=True)
class Recipe:
    """How activations are smoothed before int8: see `smoothquant.smooth`."""

    strength: float | None
    """Share of an activation's size that the weights take over; None: no smoothing."""

    outliers: int
    """How many channels are multiplied apart."""


RECIPES = (Recipe(None, 0), Recipe(0.7, 0), Recipe(0.7, 8), Recipe(0.8, 8))


@dataclass(frozen=True)
class Int8Candidate:
    """One int8 form of a student, measured on this machine."""

    recipe: Recipe
    path: Path
    bytes: int

    us: float
    """Median microseconds for a text."""

    neighbours: float
    """Mean overlap of a text's 10 nearest others with those by the float student."""

    cosine: float
    """Mean cosine of a text's vector to that by the float student. It tells forms apart where
    neighbours do not: among eleven texts the 10 nearest are always all others.
    """

    def dominates(self, other: Int8Candidate) -> bool:
        """Return whether this is no worse in every cost and better in one."""
        costs = self._costs()
        other_costs = other._costs()
        return costs != other_costs and all(a <= b for a, b in zip(costs, other_costs, strict=True))

    def _costs(self) -> tuple[float, float, float, float]:
        return self.bytes, self.us, -self.neighbours, -self.cosine


def search(
    student: Student,
    config: Any,
    calibration: Sequence[Tokens],
    evaluation: Sequence[Tokens],
    folder: Path,
    bits: int,
    min_cosine: float = 0.0,
) -> list[Int8Candidate]:
    """Return the Pareto front of the recipes, the best of the nearly fastest first. Those with a
    cosine below `min_cosine`, which the gate would refuse, come last.

    Channels are measured on the texts `calibration`, forms compared on `evaluation`; files go to
    `folder`; `bits` of a weight are 7 or 8; `config` is the language model's.
    """
    exact = _encode_float(student, evaluation)
    paths = []
    for number, recipe in enumerate(tqdm(RECIPES, desc="int8 forms", unit="form", leave=False)):
        source = folder / f"float{number}.onnx"
        target = folder / f"form{number}.onnx"
        prepared = student
        if recipe.strength is not None:
            prepared = smooth(student, calibration, recipe.strength, recipe.outliers)
        export(prepared, source)
        quantize(source, config, target, bits)
        paths.append(target)

    graphs = [session(path) for path in paths]
    times = _median_times(graphs, evaluation)
    candidates = []
    for recipe, path, graph, us in zip(RECIPES, paths, graphs, times, strict=True):
        rounded = encode(graph, evaluation)
        overlap = neighbour_overlap(rounded, exact)
        size = path.stat().st_size
        candidates.append(Int8Candidate(recipe, path, size, us, overlap, cosine(rounded, exact)))
    front = [
        candidate
        for candidate in candidates
        if not any(other.dominates(candidate) for other in candidates)
    ]
    limit = NEARLY_AS_FAST * min(candidate.us for candidate in front)

    def order(candidate: Int8Candidate) -> tuple[bool, bool, float, float]:
        is_refused = candidate.cosine < min_cosine
        return is_refused, candidate.us > limit, -candidate.neighbours, -candidate.cosine

    return sorted(front, key=order)


def session(path: Path, without: Sequence[str] = SLOW_FUSIONS) -> onnxruntime.InferenceSession:
    """Open a graph as the device does: one CPU thread, without `without`'s fusions."""
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def encode(graph: onnxruntime.InferenceSession, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
    """Return vectors float32 [n, t] of texts, one by one, as the device encodes."""
    return np.stack([graph.run(None, feed(text))[0][0] for text in tokens])


def feed(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """Return the graph's inputs for one text."""
    return {"input_ids": tokens[None], "attention_mask": np.ones_like(tokens)[None]}


def _median_times(
    graphs: Sequence[onnxruntime.InferenceSession], tokens: Sequence[Tokens]
) -> list[float]:
    """Return each graph's median microseconds for a text, in its quietest round.

    The graphs take turns, so that other load on the machine affects all alike; the first round
    warms up.
    """
    feeds = [feed(text) for text in tokens[:TIMED_TEXTS]]
    seconds = np.zeros((ROUNDS + 1, len(graphs), len(feeds)))
    for turn, (number, graph) in itertools.product(range(ROUNDS + 1), enumerate(graphs)):
        for row, inputs in enumerate(feeds):
            start = time.perf_counter()
            graph.run(None, inputs)
            seconds[turn, number, row] = time.perf_counter() - start
    medians = np.median(seconds[1:], axis=2)
    return [float(us) for us in medians.min(0) * 1e6]


@torch.inference_mode()
def _encode_float(student: Student, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
    rows = []
    for text in tokens:
        mask = torch.ones(1, len(text), dtype=torch.int64)
        rows.append(student(torch.from_numpy(text[None]), mask))
    return torch.cat(rows).numpy()
