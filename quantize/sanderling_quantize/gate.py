"""The gate: is the finished bundle, opened as a device opens it, still the policy and teacher that it was made from?

Refuses to write or to repair anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanderling.contract.bundle import Bundle
from sanderling.golden import faults
from sanderling.scorer import Scorer
from sanderling.state import StateModel
from sanderling_quantize.checkpoint import Checkpoint

SLATE = 10
STATES = 200
TEXTS = 400


@dataclass(frozen=True)
class Thresholds:
    """The least, or for bytes the most, with which a bundle passes.

    cosine_seen, cosine_unseen: mean cosine of the int8 encoder to the float teacher, on texts that the student was
    trained on, and on catalogue texts that it never saw.
    spearman, neighbours: rank correlation of all pairs' similarities, and overlap of the 10 nearest, on seen texts.
    new_item: mean cosine of a new item's vector (unseen text) to the one that the teacher's text vector would give.
    slate: mean overlap of the greedy slate of 10 with the float policy's.
    encoder_bytes: size of encoder.onnx.
    """

    cosine_seen: float = 0.90
    cosine_unseen: float = 0.85
    spearman: float = 0.85
    neighbours: float = 0.60
    new_item: float = 0.85
    slate: float = 0.90
    encoder_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Check:
    """One line of the gate's table."""

    check: str
    value: float
    threshold: float
    passed: bool


def judge(
    bundle: Path,
    checkpoint: Checkpoint,
    seen: tuple[Sequence[str], NDArray[np.float32]],
    unseen: tuple[Sequence[str], NDArray[np.float32]],
    thresholds: Thresholds,
) -> list[Check]:
    """Return the gate's checks, failing ones first. `seen` and `unseen` are texts with the teacher's vectors [n, t]."""
    opened = Bundle.open(bundle, verify=True)
    scorer = Scorer(opened)
    wrong = faults(opened)
    rows = [_most("golden faults", len(wrong), 0)]
    seen_vectors = _encode(scorer, seen[0][:TEXTS], "gate: seen texts")
    seen_teacher = seen[1][:TEXTS]
    rows.append(_least("cosine, seen texts", _cosine(seen_vectors, seen_teacher), thresholds.cosine_seen))
    rows.append(_least("spearman, seen texts", spearman(seen_vectors, seen_teacher), thresholds.spearman))
    rows.append(_least("10 nearest, seen texts", neighbours(seen_vectors, seen_teacher), thresholds.neighbours))
    if len(unseen[0]):
        unseen_vectors = _encode(scorer, unseen[0][:TEXTS], "gate: unseen texts")
        unseen_teacher = unseen[1][:TEXTS]
        project = checkpoint.tensors["item.project"]
        rows.append(_least("cosine, unseen texts", _cosine(unseen_vectors, unseen_teacher), thresholds.cosine_unseen))
        new = _cosine(unseen_vectors @ project.T, unseen_teacher @ project.T)
        rows.append(_least("cosine, new items", new, thresholds.new_item))
    rows.append(_least("greedy slate of 10", slate_agreement(scorer, checkpoint), thresholds.slate))
    size = opened.manifest.files["encoder.onnx"].length
    rows.append(_most("encoder bytes", size, thresholds.encoder_bytes))
    return sorted(rows, key=lambda row: row.passed)


def slate_agreement(scorer: Scorer, checkpoint: Checkpoint) -> float:
    """Return the mean share of the float policy's greedy slate that the bundle shows too, over random histories.

    Histories are of 0 to 40 items drawn by the policy's own item biases, none twice.
    """
    tensors, kinds = checkpoint.tensors, scorer.bundle.manifest.kinds
    model = StateModel(tensors, kinds)
    vectors, biases = tensors["item.vectors"].astype(np.float64), tensors["item.biases"].astype(np.float64)
    rng = np.random.default_rng(0)
    chance = np.exp(biases - biases.max()) / np.exp(biases - biases.max()).sum()
    overlap = []
    for _ in range(STATES):
        length = int(rng.integers(0, min(40, len(biases) - SLATE)))
        history = rng.choice(len(biases), size=length, replace=False, p=chance).tolist() if length else []
        state, exact = scorer.state.start(), model.start()
        for row in history:
            kind = kinds[int(rng.integers(len(kinds)))]
            state = scorer.state.step(state, scorer.vector(int(row)), kind)
            exact = model.step(exact, tensors["item.vectors"][row], kind)
        float_scores = vectors @ model.user(exact).astype(np.float64) + biases
        wanted = set(np.argsort(-float_scores, kind="stable")[:SLATE].tolist())
        overlap.append(len(wanted & set(scorer.rank(scorer.state.user(state), SLATE).rows.tolist())) / len(wanted))
    return float(np.mean(overlap))


def spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return Spearman's rank correlation of the similarities of all pairs of rows of a and of b, each [n, t]."""
    upper = np.triu_indices(len(a), 1)
    ranks = [np.argsort(np.argsort((x @ x.T)[upper])) for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(upper[0]) > 1 else 1.0


def neighbours(a: NDArray[np.float32], b: NDArray[np.float32], k: int = 10) -> float:
    """Return the mean overlap of each row's k nearest other rows in a and in b, each [n, t]."""
    k = min(k, len(a) - 1)
    if k < 1:
        return 1.0
    near = []
    for x in (a, b):
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        near.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return float(
        np.mean([len(set(one) & set(other)) / k for one, other in zip(near[0].tolist(), near[1].tolist(), strict=True)])
    )


def report(rows: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the table as plain data, for the manifest and for `--json`."""
    return [asdict(row) for row in rows]


def _encode(scorer: Scorer, texts: Sequence[str], label: str) -> NDArray[np.float32]:
    return np.stack([scorer.encoder.encode(text) for text in tqdm(texts, desc=label, unit="text", leave=False)])


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(norms, 1e-12)))


def _least(check: str, value: float, threshold: float) -> Check:
    return Check(check, value, threshold, bool(value >= threshold))


def _most(check: str, value: float, threshold: float) -> Check:
    return Check(check, float(value), float(threshold), bool(value <= threshold))
