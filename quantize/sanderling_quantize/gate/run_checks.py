"""The gate's table: what a bundle answers, beside what teacher and float policy would. Refuses to open the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.sequential import marginals
from sanderling_quantize import similarity
from sanderling_quantize.gate.check import Check, fault, least, most
from sanderling_quantize.gate.probe_process import TIMEOUT_S, NoAnswerError, ProbeAnswer, ask, size
from sanderling_quantize.gate.probe_protocol import SLATE, Events
from sanderling_quantize.gate.reference_policy import FloatPolicy, Queries
from sanderling_quantize.gate.thresholds import Thresholds

if TYPE_CHECKING:
    from sanderling_quantize.checkpoint import Checkpoint

STATES = 200
ITEMS = 200
TEXTS = 400
FEW = 30

Texts = tuple[Sequence[str], NDArray[np.float32]]


def judge(
    bundle: Path,
    checkpoint: Checkpoint,
    seen: Texts,
    unseen: Texts,
    thresholds: Thresholds,
    previous: Path | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> list[Check]:
    """Return the gate's checks, failing ones first. `seen` and `unseen` are texts with the teacher's vectors [n, t].

    `previous` is the bundle of the release before, for the latency. What fewer than 30 texts or queries would decide is
    left out. A bundle that does not open, or whose engine crashes or does not answer within `timeout_s` seconds, is one
    failing check that says so.
    """
    policy, rng = FloatPolicy(checkpoint), np.random.default_rng(0)
    drawn, queries = policy.histories(STATES, rng), policy.queries(checkpoint.folder)
    seen, unseen = _first(seen), _first(unseen)
    histories = [*drawn, *queries.histories]
    try:
        answer = ask(bundle, previous, [*seen[0], *unseen[0]], histories, policy.repeats, timeout_s)
    except NoAnswerError as error:
        return [fault("answers of the engine", str(error))]
    expected, found = (
        (*policy.vectors.shape, seen[1].shape[1]),
        (*answer.items.shape, answer.texts.shape[1]),
    )
    if expected != found:
        return [
            fault(
                "sizes",
                f"expected items, dimensions of an item and of a text {expected}, found {found}",
            )
        ]
    rows = [
        most("golden faults", len(answer.words.golden), 0, "; ".join(answer.words.golden[:1])),
        *_texts(answer, seen, unseen, policy, thresholds),
        *_items(answer, policy, policy.users(drawn), rng, thresholds),
        *_slates(answer, policy, drawn, queries, thresholds),
        *_latency(answer, thresholds),
        most("encoder bytes", (bundle / "encoder.onnx").stat().st_size, thresholds.encoder_bytes),
        most("bundle bytes", size(bundle), thresholds.bundle_bytes),
    ]
    return sorted(rows, key=lambda row: row.passed)


def _first(texts: Texts) -> Texts:
    return texts[0][:TEXTS], texts[1][:TEXTS]


def _texts(
    answer: ProbeAnswer, seen: Texts, unseen: Texts, policy: FloatPolicy, thresholds: Thresholds
) -> list[Check]:
    old, new = np.split(answer.texts, [len(seen[0])])
    lengths = np.linalg.norm(answer.texts, axis=1)
    rows = [
        most(
            "text vectors, length off 1", np.abs(lengths - 1.0).max(initial=0.0), thresholds.length
        )
    ]
    rows += _likeness(
        "seen",
        old,
        seen[1],
        thresholds.cosine_seen,
        thresholds.spearman_seen,
        thresholds.neighbours_seen,
    )
    rows += _likeness(
        "unseen",
        new,
        unseen[1],
        thresholds.cosine_unseen,
        thresholds.spearman_unseen,
        thresholds.neighbours_unseen,
    )
    if len(new):
        value = similarity.cosine(answer.new[len(seen[0]) :], unseen[1] @ policy.project.T)
        rows.append(least("cosine, new items", value, thresholds.new_item))
    return rows


def _likeness(
    name: str,
    found: NDArray[np.float32],
    teacher: NDArray[np.float32],
    cosine: float,
    spearman: float,
    near: float,
) -> list[Check]:
    rows = (
        [least(f"cosine, {name} texts", similarity.cosine(found, teacher), cosine)]
        if len(found)
        else []
    )
    if len(found) >= FEW:
        rows.append(least(f"spearman, {name} texts", similarity.spearman(found, teacher), spearman))
        rows.append(least(f"10 nearest, {name} texts", similarity.neighbours(found, teacher), near))
    return rows


def _items(
    answer: ProbeAnswer,
    policy: FloatPolicy,
    users: NDArray[np.float32],
    rng: np.random.Generator,
    thresholds: Thresholds,
) -> list[Check]:
    wrong = [
        (row, a, b)
        for row, (a, b) in enumerate(zip(policy.ids, answer.words.ids, strict=True))
        if a != b
    ]
    note = "row {}: expected {!r}, found {!r}".format(*wrong[0]) if wrong else ""
    agreement = similarity.agreement(answer.items, policy.vectors)
    queries = policy.vectors[
        rng.choice(len(policy.ids), min(ITEMS, len(policy.ids)), replace=False)
    ]
    nothing = np.zeros_like(policy.biases)
    int8 = [*_top(answer.items, nothing, queries), *_top(answer.items, answer.biases, users)]
    exact = [*_top(policy.vectors, nothing, queries), *_top(policy.vectors, policy.biases, users)]
    return [
        most("item ids out of place", len(wrong), 0, note),
        least(
            "item rows, least agreement",
            agreement.min(),
            thresholds.item_rows,
            f"item {policy.ids[agreement.argmin()]}",
        ),
        least("item rows, 10 best", similarity.overlap(int8, exact, SLATE), thresholds.rows_top),
    ]


def _top(
    vectors: NDArray[np.float32], biases: NDArray[np.float32], queries: NDArray[np.float32]
) -> list[list[int]]:
    return [
        similarity.best(vectors @ query.astype(np.float64) + biases, SLATE).tolist()
        for query in queries
    ]


def _slates(
    answer: ProbeAnswer,
    policy: FloatPolicy,
    drawn: Sequence[Events],
    queries: Queries,
    thresholds: Thresholds,
) -> list[Check]:
    device, later = answer.words.rankings[: len(drawn)], answer.words.rankings[len(drawn) :]
    exact = policy.rankings(policy.users(drawn), drawn)
    drift = [
        similarity.total_variation(
            _first_slot(a, answer.words.epsilon), _first_slot(b, policy.epsilon)
        )
        for a, b in zip(device, exact, strict=True)
    ]
    rows = [
        least("greedy slate of 10", similarity.overlap(device, exact, SLATE), thresholds.slate),
        most("propensity drift", float(np.mean(drift)), thresholds.drift),
    ]
    if len(queries.histories) >= FEW:
        wanted = policy.rankings(policy.users(queries.histories), queries.histories)
        gains = (
            similarity.ndcg(later, queries.relevant, SLATE),
            similarity.ndcg(wanted, queries.relevant, SLATE),
        )
        rows.append(_gain(*gains, thresholds))
    return rows


def _gain(device: NDArray[np.float64], exact: NDArray[np.float64], thresholds: Thresholds) -> Check:
    """Judge the device's ranking of what came next by the float policy's, two standard errors of the users' differences
    in its favour: few users cannot tell a bad bundle from luck, and other rows find the bad ones."""
    error = float(np.std(device - exact, ddof=1)) / len(exact) ** 0.5
    gain, whole = float(device.mean()), max(float(exact.mean()), 1e-12)
    note = f"{gain:.4f} +- {error:.4f} on the device, {whole:.4f} in float, {len(exact)} users"
    return least(
        "ndcg@10, device + 2 errors / float", (gain + 2.0 * error) / whole, thresholds.ndcg, note
    )


def _first_slot(ranking: Sequence[str], epsilon: float) -> dict[str, float]:
    """Return the chance of each item of a pool in greedy order to be the first on the slate, scheme `sequential`."""
    return (
        dict(zip(ranking, marginals(1, len(ranking), epsilon)[0].tolist(), strict=True))
        if ranking
        else {}
    )


def _latency(answer: ProbeAnswer, thresholds: Thresholds) -> list[Check]:
    measured = {"encode": answer.words.encode, "recommend": answer.words.recommend}
    return [
        most(
            f"{name}, new / previous",
            new / old,
            thresholds.latency,
            f"{new:.3f} ms, before {old:.3f} ms",
        )
        for name, (new, old) in ((name, pair) for name, pair in measured.items() if pair)
    ]
