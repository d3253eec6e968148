"""The slow twins of reasons: engines to which the cause never happened, and counting one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sanderling import Engine
from sanderling.ranking.scorer import Scorer
from sanderling.slate import Slate, SlateItem

MANY = 1000


def score_after(
    bundle: Path,
    events: Iterable[tuple[str, str]],
    item: str,
    context: str | None = None,
    added: Sequence[dict[str, Any]] = (),
) -> float:
    """Return an item's score in a new engine after some events."""
    with Engine.open(bundle) as engine:
        engine.upsert_items(added)
        for observed, kind in events:
            engine.observe("twin", observed, kind)
        slate = engine.recommend("twin", MANY, context=context, greedy=True)
        return {shown.id: shown.score for shown in slate}[item]


def naive_percentile(scorer: Scorer, row: int) -> float:
    """Return the share of items whose bias is lower."""
    biases = scorer.index.bias.tolist()
    return sum(bias < biases[row] for bias in biases) / len(biases)


def naive_passed_over(
    engine: Engine, slate: Slate, shown: SlateItem, removed: Sequence[str]
) -> int:
    """Return how many items that are above one in a slate of everything are not shown above it in
    its own slate, which is greedy, nor pinned there."""
    if shown.pinned:
        return 0
    everything = [item.id for item in engine.recommend(slate.user, MANY, greedy=True)]
    above = everything[: everything.index(shown.id)]
    assert not set(above) & set(removed)
    on_slate = {item.id for item in slate if item.pinned or item.slot < shown.slot}
    return len(set(above) - on_slate)
