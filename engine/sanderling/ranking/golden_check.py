"""The golden vectors of a bundle: does it compute here what it computed in the lab?

Hashes show that a bundle was not altered; this shows that it is right on this machine. Refuses to repair anything.
"""

from __future__ import annotations

import msgspec
import numpy as np

from sanderling.bundle.golden import Golden
from sanderling.bundle.reader import Bundle
from sanderling.errors import SanderlingError
from sanderling.ranking.scorer import Scorer

MIN_COSINE = 0.999
MIN_OVERLAP = 0.8
DEPTH = 10


def faults(bundle: Bundle) -> list[str]:
    """Return what the bundle computes otherwise than the lab did; an empty list when it is right."""
    try:
        golden = msgspec.json.decode((bundle.folder / "golden.json").read_bytes(), type=Golden)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        return [f"golden.json: {error}"]
    if not golden.texts or not golden.states:
        return ["golden.json: expected texts and states, found none"]
    scorer = Scorer(bundle)
    try:
        return [*_text_faults(scorer, golden), *_state_faults(scorer, golden)]
    except (SanderlingError, ValueError) as error:
        return [str(error)]


def _text_faults(scorer: Scorer, golden: Golden) -> list[str]:
    found = []
    for entry in golden.texts:
        wanted, vector = np.array(entry.vector), scorer.encoder.encode(entry.text)
        if wanted.shape != vector.shape:
            found.append(
                f"golden text {entry.text!r}: expected {wanted.size} numbers, found {vector.size}"
            )
            continue
        cosine = float(wanted @ vector / (np.linalg.norm(wanted) * np.linalg.norm(vector) + 1e-12))
        if not cosine >= MIN_COSINE:
            found.append(
                f"golden text {entry.text!r}: expected a cosine of at least {MIN_COSINE}, found {cosine:.4f}"
            )
    return found


def _state_faults(scorer: Scorer, golden: Golden) -> list[str]:
    found = []
    for number, entry in enumerate(golden.states):
        overlap = len(set(top_after(scorer, entry.events, len(entry.top))) & set(entry.top)) / max(
            len(entry.top), 1
        )
        if not entry.top or overlap < MIN_OVERLAP:
            found.append(
                f"golden state {number}: expected a top-10 overlap of at least {MIN_OVERLAP}, found {overlap:.2f}"
            )
    return found


def top_after(scorer: Scorer, events: list[tuple[str, str]], k: int = DEPTH) -> list[str]:
    """Return the ids of the k best items after these events (item id, kind), seen items included."""
    state = scorer.state.start()
    for item, kind in events:
        row = scorer.find(item)
        if row is not None:
            state = scorer.state.step(state, scorer.vector(row), kind)
    return [scorer.entry(row).id for row in scorer.rank(scorer.state.user(state), k).rows.tolist()]
