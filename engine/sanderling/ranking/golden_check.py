"""Checks that a bundle computes on this machine what it computed in the lab, and that requests can
meet its rules.

Hashes show that a bundle was not altered; its golden inputs and outputs show that encoder, policy
and items work together here.
"""

from __future__ import annotations

import msgspec
import numpy as np

from sanderling.bundle.golden import Golden, GoldenState, GoldenText
from sanderling.bundle.reader import Bundle
from sanderling.errors import SanderlingError
from sanderling.ranking.bundle_rules import fault_in, rules_of
from sanderling.ranking.encoder_operators import operator_faults
from sanderling.ranking.scorer import Scorer

# Not equality, because int8 arithmetic differs between processors.
MIN_COSINE = 0.999
MIN_OVERLAP = 0.8
DEPTH = 10  # items of a golden ranking


def faults(bundle: Bundle) -> list[str]:
    """Return where the bundle's results differ from the lab's, what is wrong with its rules, or
    which operators its encoder must not have; an empty list when there is nothing of that."""
    unsafe = operator_faults(bundle.folder / "encoder.onnx")
    if unsafe:
        return unsafe
    try:
        golden = msgspec.json.decode((bundle.folder / "golden.json").read_bytes(), type=Golden)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        return [f"golden.json: {error}"]
    if not golden.texts or not golden.states:
        return ["golden.json: expected texts and states, found none"]
    scorer = Scorer(bundle)
    try:
        results = [
            _rules_fault(scorer),
            *(_text_fault(scorer, text) for text in golden.texts),
            *(_state_fault(scorer, i, state) for i, state in enumerate(golden.states)),
        ]
    except (SanderlingError, ValueError) as error:
        return [str(error)]
    return [fault for fault in results if fault is not None]


def _rules_fault(scorer: Scorer) -> str | None:
    fault = fault_in(scorer, rules_of(scorer))
    return None if fault is None else f"manifest.json: rules: {fault}"


def _text_fault(scorer: Scorer, golden: GoldenText) -> str | None:
    expected = np.array(golden.vector)
    vector = scorer.encoder.encode(golden.text)
    if expected.shape != vector.shape:
        return f"golden text {golden.text!r}: expected {expected.size} numbers, found {vector.size}"
    # The addend lets a zero vector fail instead of dividing by zero.
    norms = np.linalg.norm(expected) * np.linalg.norm(vector) + 1e-12
    cosine = float(expected @ vector / norms)
    if not cosine >= MIN_COSINE:
        return (
            f"golden text {golden.text!r}: expected a cosine of at least {MIN_COSINE}, "
            f"found {cosine:.4f}"
        )
    return None


def _state_fault(scorer: Scorer, index: int, golden: GoldenState) -> str | None:
    top = top_after(scorer, golden.events, len(golden.top))
    overlap = len(set(top) & set(golden.top)) / max(len(golden.top), 1)
    if not golden.top or overlap < MIN_OVERLAP:
        return (
            f"golden state {index}: expected a top-{DEPTH} overlap of at least {MIN_OVERLAP}, "
            f"found {overlap:.2f}"
        )
    return None


def top_after(scorer: Scorer, events: list[tuple[str, str]], k: int = DEPTH) -> list[str]:
    """Return the ids of the k best items after events (item id, kind), seen items included."""
    state = scorer.user_model.initial_state()
    for item, kind in events:
        row = scorer.find(item)
        if row is not None:
            state = scorer.user_model.step(state, scorer.vector(row), kind)
    ranking = scorer.rank(scorer.user_model.user_vector(state), k)
    return [scorer.item(row).id for row in ranking.rows.tolist()]
