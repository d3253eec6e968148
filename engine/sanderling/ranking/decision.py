"""Decides one slate: ranks the pool, draws from it, and repeats a decision to explain it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.exploration import schemes
from sanderling.exploration.philox import uniforms
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import SearchResult
from sanderling.slate import Explanation, Slate, SlateItem


class RecommendRequest(NamedTuple):
    """The arguments of one call of `Engine.recommend`."""

    user: str
    k: int
    context: str | None

    exclude: tuple[str, ...]
    """Ids of items that may not be shown."""

    at_most: dict[str, int]
    """Caps: how many items of one value of an attribute may be shown."""


class DecisionRecord(NamedTuple):
    """One decision: all that it depended on, the pool's ranking, and the slate."""

    scorer: Scorer

    vector: Vector
    """The user vector float32 [d], residual included."""

    plan: Exploration
    request: RecommendRequest

    ranking: SearchResult
    """The pool, best first."""

    slate: Slate

    residual: NDArray[np.float64] | None
    """What of `vector` was learned on this device, float64 [d]; None without personalization."""


def decide(
    scorer: Scorer,
    vector: Vector,
    plan: Exploration,
    request: RecommendRequest,
    decision: str,
    pseudonym: str,
    residual: NDArray[np.float64] | None = None,
) -> DecisionRecord:
    """Rank the pool for a user vector float32 [d], and draw a slate from it.

    `decision` is the id from which the draws follow, `pseudonym` the user's name on the wire, and
    `residual` what of the vector was learned on this device.
    """
    ranking = scorer.rank(vector, max(plan.pool, request.k), request.exclude, request.at_most)
    items = draw(scorer, ranking, plan, min(request.k, len(ranking.rows)), decision)
    slate = Slate(decision, request.user, pseudonym, scorer.bundle.manifest.release, items)
    return DecisionRecord(scorer, vector, plan, request, ranking, slate, residual)


def pool_vectors(record: DecisionRecord) -> NDArray[np.float64]:
    """Return the vectors float64 [M, d] of the pool from which a slate was drawn, best first."""
    rows = record.ranking.rows.tolist()
    return np.stack([record.scorer.vector(row) for row in rows]).astype(np.float64)


def draw(
    scorer: Scorer, ranking: SearchResult, plan: Exploration, slots: int, decision: str
) -> tuple[SlateItem, ...]:
    """Draw a slate of at most `slots` items from a ranking, with the randomness of a decision's id.

    It ends early where its event would exceed the wire's limit of bytes; the slots before the end
    keep their propensities.
    """
    rows = ranking.rows.tolist()
    scores = ranking.scores.tolist()
    pairs = uniforms(decision, schemes.n_uniforms(plan, slots, len(rows)))
    drawn = schemes.draw(plan, slots, ranking.scores, pairs)
    items = []
    bytes_left = wire.ROOM_FOR_SLATE
    for slot, rank in enumerate(drawn.ranks):
        item = scorer.item(rows[rank])
        bytes_left -= codec.slot_bytes(item.id)
        if bytes_left < 0:
            break
        items.append(
            SlateItem(
                id=item.id,
                title=item.title,
                score=scores[rank],
                slot=slot,
                rank=rank,
                explored=drawn.explored[slot],
                propensity=drawn.conditional[slot],
                marginal=drawn.marginal[slot],
                attributes=dict(item.attributes),
            )
        )
    return tuple(items)


def explain(record: DecisionRecord) -> Explanation:
    """Repeat a decision, and compare it with the logged one."""
    scorer = record.scorer
    slate = record.slate
    repeated = decide(
        scorer, record.vector, record.plan, record.request, slate.decision, slate.pseudonym
    )
    greedy_rows = repeated.ranking.rows[: len(repeated.slate)].tolist()
    return Explanation(
        decision=repeated.slate.decision,
        release=repeated.slate.release,
        scheme=record.plan.scheme,
        epsilon=record.plan.epsilon,
        pool=len(repeated.ranking.rows),
        eligible=repeated.ranking.eligible,
        greedy=tuple(scorer.item(row).id for row in greedy_rows),
        slate=repeated.slate.items,
        is_identical=repeated.slate.items == slate.items,
    )
