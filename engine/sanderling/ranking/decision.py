"""One slate drawn from a ranking, and drawn again to explain it. Refuses to know users, clocks and storage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.exploration import schemes
from sanderling.exploration.philox import uniforms
from sanderling.ranking.caps import Ranking
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.slate import Explanation, Slate, SlateItem


class RecommendRequest(NamedTuple):
    """What an app asked for: items for whom, how many, in which context, without which, and with which caps."""

    user: str
    k: int
    context: str | None
    exclude: tuple[str, ...]
    at_most: dict[str, int]


class DecisionRecord(NamedTuple):
    """What a decision was made of, the pool's ranking, and the slate that came out."""

    scorer: Scorer
    vector: Vector
    plan: Exploration
    asked: RecommendRequest
    ranking: Ranking
    slate: Slate
    shift: NDArray[np.float64] | None


def make(
    scorer: Scorer,
    vector: Vector,
    plan: Exploration,
    asked: RecommendRequest,
    decision: str,
    pseudonym: str,
    shift: NDArray[np.float64] | None = None,
) -> DecisionRecord:
    """Rank the pool, the best eligible items, and draw a slate; `shift` is what of the vector was learned here."""
    ranking = scorer.rank(vector, max(plan.pool, asked.k), asked.exclude, asked.at_most)
    items = draw(scorer, ranking, plan, min(asked.k, len(ranking.rows)), decision)
    slate = Slate(decision, asked.user, pseudonym, scorer.bundle.manifest.release, items)
    return DecisionRecord(scorer, vector, plan, asked, ranking, slate, shift)


def pool(made: DecisionRecord) -> NDArray[np.float64]:
    """Return the vectors [M, d] of the pool from which a slate was drawn, best first."""
    return np.stack([made.scorer.vector(row) for row in made.ranking.rows.tolist()]).astype(
        np.float64
    )


def draw(
    scorer: Scorer, ranking: Ranking, plan: Exploration, slots: int, decision: str
) -> tuple[SlateItem, ...]:
    """Draw a slate from a ranking with the randomness of a decision's id; it ends where one event could tell no more.

    The slots before are as likely as they would be with those after them.
    """
    rows, scores = ranking.rows.tolist(), ranking.scores.tolist()
    noise = uniforms(decision, schemes.blocks(plan, slots, len(rows)))
    drawn = schemes.draw(plan, slots, ranking.scores, noise)
    items = []
    room = wire.ROOM_FOR_SLATE
    for slot, place in enumerate(drawn.ranks):
        entry = scorer.entry(rows[place])
        room -= codec.slot_bytes(entry.id)
        if room < 0:
            break
        items.append(
            SlateItem(
                id=entry.id,
                title=entry.title,
                score=scores[place],
                slot=slot,
                rank=place,
                explored=drawn.explored[slot],
                propensity=drawn.conditional[slot],
                marginal=drawn.marginal[slot],
                attributes=dict(entry.attributes),
            )
        )
    return tuple(items)


def explain(made: DecisionRecord) -> Explanation:
    """Make a decision again, and say whether it came out the same."""
    again = make(
        made.scorer, made.vector, made.plan, made.asked, made.slate.decision, made.slate.pseudonym
    )
    return Explanation(
        decision=again.slate.decision,
        release=again.slate.release,
        scheme=made.plan.scheme,
        epsilon=made.plan.epsilon,
        pool=len(again.ranking.rows),
        eligible=again.ranking.eligible,
        greedy=tuple(
            made.scorer.entry(row).id for row in again.ranking.rows[: len(again.slate)].tolist()
        ),
        slate=again.slate.items,
        same=again.slate.items == made.slate.items,
    )
