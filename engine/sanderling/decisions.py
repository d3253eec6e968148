"""One slate drawn from a ranking, and drawn again to explain it. Refuses to know users, clocks and storage."""

from __future__ import annotations

from dataclasses import dataclass

from sanderling import explore
from sanderling.contract.manifest import Exploration
from sanderling.philox import uniforms
from sanderling.scorer import Ranking, Scorer, Vector
from sanderling.slate import Explanation, Slate, SlateItem


@dataclass(frozen=True, slots=True)
class Made:
    """What a decision was made of."""

    scorer: Scorer
    vector: Vector
    exclude: tuple[str, ...]
    slots: int
    plan: Exploration
    slate: Slate


def rank(scorer: Scorer, vector: Vector, plan: Exploration, k: int, exclude: tuple[str, ...]) -> Ranking:
    """Return the pool: the best eligible items, as many as the plan or the slate needs."""
    return scorer.rank(vector, max(plan.pool, k), exclude)


def draw(scorer: Scorer, ranking: Ranking, plan: Exploration, slots: int, decision: str) -> tuple[SlateItem, ...]:
    """Draw a slate from a ranking with the randomness of a decision's id."""
    rows, scores = ranking.rows.tolist(), ranking.scores.tolist()
    noise = uniforms(decision, explore.blocks(plan, slots, len(rows)))
    drawn = explore.draw(plan, slots, ranking.scores, noise)
    items = []
    for slot, place in enumerate(drawn.ranks):
        entry = scorer.entry(rows[place])
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
                attributes=entry.attributes,
            )
        )
    return tuple(items)


def explain(made: Made) -> Explanation:
    """Make a decision again, and say whether it came out the same."""
    ranking = rank(made.scorer, made.vector, made.plan, made.slots, made.exclude)
    items = draw(made.scorer, ranking, made.plan, made.slots, made.slate.decision)
    return Explanation(
        decision=made.slate.decision,
        release=made.slate.release,
        scheme=made.plan.scheme,
        epsilon=made.plan.epsilon,
        pool=len(ranking.rows),
        eligible=ranking.eligible,
        greedy=tuple(made.scorer.entry(row).id for row in ranking.rows[: made.slots].tolist()),
        slate=items,
        same=items == made.slate.items,
    )
