"""The gate's table: what a bundle computes, compared with the teacher and the float policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.sequential import marginals
from sanderling_quantize import similarity
from sanderling_quantize.gate.check import Check, at_least, at_most, failed_check
from sanderling_quantize.gate.probe_process import (
    TIMEOUT_S,
    ProbeAnswer,
    ProbeError,
    folder_bytes,
    probe_bundle,
)
from sanderling_quantize.gate.probe_protocol import SLATE, Events
from sanderling_quantize.gate.reference_policy import (
    FloatPolicy,
    HeldOutQueries,
    NewItems,
    TeacherTexts,
    TextSplit,
)
from sanderling_quantize.gate.thresholds import Thresholds
from sanderling_quantize.readability import MAX_IDENTICAL, MAX_SPELLED, MAX_UNKNOWN

if TYPE_CHECKING:
    from sanderling_quantize.checkpoint import Checkpoint

STATES = 200
ITEM_QUERIES = 200
TEXTS = 400
NEW_ITEMS = 200
ENOUGH = 30  # fewer texts or queries decide nothing by rank correlation, neighbours or nDCG

Vectors = NDArray[np.float32]


def run_checks(
    bundle: Path,
    checkpoint: Checkpoint,
    texts: TextSplit,
    thresholds: Thresholds,
    previous: Path | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> list[Check]:
    """Return the gate's checks, failed ones first.

    `previous` is the bundle of the release before, for the latency. A check that fewer than 30
    texts or queries would decide is left out. A bundle that does not open, or whose engine crashes
    or takes longer than `timeout_s` seconds, gives one failed check that says so.
    """
    policy = FloatPolicy(checkpoint)
    rng = np.random.default_rng(0)
    drawn = policy.draw_histories(STATES, rng)
    queries = policy.held_out_queries(checkpoint.folder)
    texts = TextSplit(texts.seen.first(TEXTS), texts.unseen.first(TEXTS))
    all_texts = [*texts.seen.texts, *texts.unseen.texts]
    histories = [*drawn, *queries.histories]
    new = policy.new_items(NEW_ITEMS, rng)
    try:
        answer = probe_bundle(
            bundle,
            previous,
            all_texts,
            new.records,
            checkpoint.texts,
            histories,
            policy.repeats,
            timeout_s,
        )
    except ProbeError as error:
        return [failed_check("answers of the engine", str(error))]

    # arrays of other shapes cannot be compared at all
    expected = (*policy.vectors.shape, texts.seen.vectors.shape[1])
    found = (*answer.item_vectors.shape, answer.text_vectors.shape[1])
    if expected != found:
        note = f"expected items, dimensions of an item and of a text {expected}, found {found}"
        return [failed_check("sizes", note)]

    faults = answer.reply.golden_faults
    encoder_bytes = (bundle / "encoder.onnx").stat().st_size
    rows = [
        at_most("golden faults", len(faults), 0, "; ".join(faults[:1])),
        *_readability_checks(answer, checkpoint.settings["config"].get("train_anyway", False)),
        *_text_checks(answer, texts, policy, thresholds),
        *_new_item_checks(answer, new, thresholds),
        *_item_checks(answer, policy, policy.user_vectors(drawn), rng, thresholds),
        *_ranking_checks(answer, policy, drawn, queries, thresholds),
        *_latency_checks(answer, thresholds),
        at_most("encoder bytes", encoder_bytes, thresholds.encoder_bytes),
        at_most("bundle bytes", folder_bytes(bundle), thresholds.bundle_bytes),
    ]
    return sorted(rows, key=lambda row: row.passed)


def _readability_checks(answer: ProbeAnswer, is_accepted: bool) -> list[Check]:
    """Return the shares of the catalog's texts that the tokenizer cannot read.

    The language model that the bundle is compared with may be as blind as the bundle.
    """
    found = answer.reply.readability
    if found is None:
        return []
    note = ""
    if is_accepted:
        note = "accepted by train_anyway"
    elif not found.is_readable():
        note = f"{found.sentence()}; train with a multilingual --language-model"
    limits = {
        "unknown characters": (found.unknown, MAX_UNKNOWN),
        "letters read one by one": (found.spelled, MAX_SPELLED),
        "texts with the same tokens": (found.identical, MAX_IDENTICAL),
    }
    return [
        at_most(name, share, 1.0 if is_accepted else limit, note if share > limit else "")
        for name, (share, limit) in limits.items()
    ]


def _text_checks(
    answer: ProbeAnswer, texts: TextSplit, policy: FloatPolicy, limits: Thresholds
) -> list[Check]:
    n_seen = len(texts.seen.texts)
    seen, unseen = np.split(answer.text_vectors, [n_seen])
    off_1 = np.abs(np.linalg.norm(answer.text_vectors, axis=1) - 1.0).max(initial=0.0)
    rows = [at_most("text vectors, length off 1", off_1, limits.length)]

    if len(seen):
        value = similarity.cosine(seen, texts.seen.vectors)
        rows.append(at_least("cosine, seen texts", value, limits.cosine_seen))
    rows += _neighbourhood_checks(
        "seen", seen, texts.seen, limits.spearman_seen, limits.neighbours_seen
    )

    if len(unseen):
        value = similarity.cosine(unseen, texts.unseen.vectors)
        rows.append(at_least("cosine, unseen texts", value, limits.cosine_unseen))
    rows += _neighbourhood_checks(
        "unseen", unseen, texts.unseen, limits.spearman_unseen, limits.neighbours_unseen
    )

    if len(unseen):
        value = similarity.cosine(
            answer.new_item_vectors[n_seen:], texts.unseen.vectors @ policy.project.T
        )
        rows.append(at_least("cosine, new items", value, limits.new_item))
    return rows


def _new_item_checks(answer: ProbeAnswer, new: NewItems, limits: Thresholds) -> list[Check]:
    """Compare where device and lab place items by texts and typed attributes, if there are any."""
    if answer.placed_items.shape != new.vectors.shape:
        note = f"expected {list(new.vectors.shape)}, found {list(answer.placed_items.shape)}"
        return [failed_check("new items with attributes", note)]
    if not len(new.vectors):
        return []
    value = similarity.cosine(answer.placed_items, new.vectors)
    return [at_least("cosine, new items with attributes", value, limits.new_item)]


def _neighbourhood_checks(
    name: str, vectors: Vectors, teacher: TeacherTexts, spearman: float, neighbours: float
) -> list[Check]:
    if len(vectors) < ENOUGH:
        return []
    correlation = similarity.spearman(vectors, teacher.vectors)
    nearest = similarity.neighbour_overlap(vectors, teacher.vectors)
    return [
        at_least(f"spearman, {name} texts", correlation, spearman),
        at_least(f"10 nearest, {name} texts", nearest, neighbours),
    ]


def _item_checks(
    answer: ProbeAnswer,
    policy: FloatPolicy,
    users: Vectors,
    rng: np.random.Generator,
    limits: Thresholds,
) -> list[Check]:
    misplaced = [
        f"row {row}: expected {expected!r}, found {found!r}"
        for row, (expected, found) in enumerate(zip(policy.ids, answer.reply.ids, strict=True))
        if expected != found
    ]
    agreement = similarity.agreement(answer.item_vectors, policy.vectors)
    worst = policy.ids[agreement.argmin()]

    n_queries = min(ITEM_QUERIES, len(policy.ids))
    items = policy.vectors[rng.choice(len(policy.ids), n_queries, replace=False)]
    no_bias = np.zeros_like(policy.biases)
    int8 = _top_rows(answer.item_vectors, no_bias, items)
    int8 += _top_rows(answer.item_vectors, answer.item_biases, users)
    exact = _top_rows(policy.vectors, no_bias, items)
    exact += _top_rows(policy.vectors, policy.biases, users)
    return [
        at_most("item ids out of place", len(misplaced), 0, "".join(misplaced[:1])),
        at_least("item rows, least agreement", agreement.min(), limits.item_rows, f"item {worst}"),
        at_least("item rows, 10 best", similarity.overlap(int8, exact, SLATE), limits.rows_top),
    ]


def _top_rows(vectors: Vectors, biases: Vectors, queries: Vectors) -> list[list[int]]:
    return [
        similarity.top_k(vectors @ query.astype(np.float64) + biases, SLATE).tolist()
        for query in queries
    ]


def _ranking_checks(
    answer: ProbeAnswer,
    policy: FloatPolicy,
    drawn: Sequence[Events],
    queries: HeldOutQueries,
    limits: Thresholds,
) -> list[Check]:
    device = answer.reply.rankings[: len(drawn)]
    exact = policy.rankings(policy.user_vectors(drawn), drawn)
    drift = [
        similarity.total_variation(
            _first_slot(on_device, answer.reply.epsilon), _first_slot(in_float, policy.epsilon)
        )
        for on_device, in_float in zip(device, exact, strict=True)
    ]
    rows = [
        at_least("greedy slate of 10", similarity.overlap(device, exact, SLATE), limits.slate),
        at_most("propensity drift", float(np.mean(drift)), limits.drift),
    ]

    if len(queries.histories) >= ENOUGH:
        users = policy.user_vectors(queries.histories)
        device_gain = similarity.ndcg(answer.reply.rankings[len(drawn) :], queries.relevant, SLATE)
        float_gain = similarity.ndcg(
            policy.rankings(users, queries.histories), queries.relevant, SLATE
        )
        rows.append(ndcg_check(device_gain, float_gain, limits.ndcg))
    return rows


def ndcg_check(device: NDArray[np.float64], exact: NDArray[np.float64], threshold: float) -> Check:
    """Compare each user's nDCG [n] on the device with that of the float policy.

    Two standard errors of the users' differences are added to the device's mean, because with few
    users chance would fail good bundles; other rows detect the bad ones.
    """
    error = float(np.std(device - exact, ddof=1)) / len(exact) ** 0.5
    gain = float(device.mean())
    float_gain = max(float(exact.mean()), 1e-12)
    note = f"{gain:.4f} +- {error:.4f} on the device, {float_gain:.4f} in float, {len(exact)} users"
    ratio = (gain + 2.0 * error) / float_gain
    return at_least("ndcg@10, device + 2 errors / float", ratio, threshold, note)


def _first_slot(ranking: Sequence[str], epsilon: float) -> dict[str, float]:
    """Return each item's probability of the first slot by the scheme `sequential`."""
    if not ranking:
        return {}
    return dict(zip(ranking, marginals(1, len(ranking), epsilon)[0].tolist(), strict=True))


def _latency_checks(answer: ProbeAnswer, limits: Thresholds) -> list[Check]:
    measured = {"encode": answer.reply.encode_ms, "recommend": answer.reply.recommend_ms}
    rows = []
    for name, pair in measured.items():
        if pair:
            new, old = pair
            note = f"{new:.3f} ms, before {old:.3f} ms"
            rows.append(at_most(f"{name}, new / previous", new / old, limits.latency, note))
    return rows
