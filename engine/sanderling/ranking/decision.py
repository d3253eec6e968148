"""Decides one slate: ranks the pool, draws from it, and repeats a decision to explain it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.exploration import newcomers, schemes
from sanderling.exploration.philox import uniforms
from sanderling.ranking.newcomers import NO_NEWCOMERS, Newcomers
from sanderling.ranking.rules import Rule
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import Rows, SearchResult
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

    where: Rule | None = None
    """The rule that items must meet to be shown."""

    among: tuple[str, ...] | None = None
    """The ids of the only items that may be shown; None for all."""

    earlier: tuple[str, ...] = ()
    """The ids of the items on the pages before, which are not shown again."""

    @property
    def is_confined(self) -> bool:
        """Whether a rule or a list of items confines what may be shown."""
        return self.where is not None or self.among is not None


class Candidates(NamedTuple):
    """What a slate is drawn from."""

    ranking: SearchResult
    """The pool, best first."""

    newcomers: Newcomers
    """The newcomers outside the pool, of which there are none without a quota for them."""

    excluded: Rows
    """The rows of the items that may not be shown, -1 for ids that have none."""


class DecisionRecord(NamedTuple):
    """One decision: all that it depended on, the pool's ranking, and the slate."""

    scorer: Scorer

    vector: Vector
    """The user vector float32 [d], residual included."""

    plan: Exploration
    request: RecommendRequest

    candidates: Candidates
    slate: Slate

    residual: NDArray[np.float64] | None
    """What of `vector` was learned on this device, float64 [d]; None without personalization."""

    @property
    def ranking(self) -> SearchResult:
        """The pool, best first."""
        return self.candidates.ranking

    @property
    def newcomer_rate(self) -> float:
        """The probability that a slot behind the guarded ones showed a newcomer."""
        has_quota = schemes.has_quota(self.plan, len(self.candidates.newcomers))
        return newcomers.rate(self.plan) if has_quota else 0.0

    @property
    def epsilon(self) -> float:
        """The scheme's probability of exploring in slots that are not newcomers'."""
        return newcomers.regular(self.plan).epsilon if self.newcomer_rate else self.plan.epsilon


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
    candidates = _candidates(scorer, vector, plan, request)
    slots = min(request.k, len(candidates.ranking.rows))
    items = _draw(scorer, vector, plan, candidates, slots, decision)
    slate = Slate(
        decision,
        request.user,
        pseudonym,
        scorer.bundle.manifest.release,
        items,
        candidates.ranking.eligible,
        "" if len(items) == request.k else _shortage(request, candidates.ranking, len(items)),
        request.earlier,
    )
    return DecisionRecord(scorer, vector, plan, request, candidates, slate, residual)


def pool_vectors(record: DecisionRecord) -> NDArray[np.float64]:
    """Return the vectors float64 [M, d] of the pool from which a slate was drawn, best first."""
    rows = record.ranking.rows.tolist()
    return np.stack([record.scorer.vector(row) for row in rows]).astype(np.float64)


def is_pool_shaped(record: DecisionRecord) -> bool:
    """Return whether the pool is another than that of the bundle's best items for the user.

    It is under caps and rules, with items that the device added or removed, and where an excluded
    item would have been in it. Nobody can rebuild such a pool from the user's events.
    """
    scorer = record.scorer
    request = record.request
    if request.at_most or request.is_confined or scorer.overlay.records:
        return True
    excluded = record.candidates.excluded
    excluded = excluded[excluded >= 0]
    if not len(excluded):
        return False
    scores = record.ranking.scores
    if len(scores) < max(record.plan.pool, request.k):
        return True  # every eligible item is in the pool, so each of these would be
    return bool((scorer.scores(record.vector, excluded) >= scores[-1]).any())


def _candidates(
    scorer: Scorer, vector: Vector, plan: Exploration, request: RecommendRequest
) -> Candidates:
    excluded = scorer.rows_of(request.exclude + request.earlier)
    eligible = scorer.all_items
    if request.is_confined:
        eligible = scorer.eligible(request.where, request.among)
    size = max(plan.pool, request.k)
    ranking = scorer.rank(vector, size, excluded, request.at_most, eligible)
    if not schemes.has_quota(plan, len(eligible.newcomers)):
        return Candidates(ranking, NO_NEWCOMERS, excluded)
    outside = scorer.newcomers_outside(
        vector, size, excluded, request.at_most, ranking.rows, eligible
    )
    return Candidates(ranking, outside, excluded)


def _shortage(request: RecommendRequest, ranking: SearchResult, shown: int) -> str:
    """Return why a slate is shorter than its request."""
    by = {
        "where": request.where,
        "among": request.among is not None,
        "after": request.earlier,
        "exclude": request.exclude,
    }
    rules = " and ".join(f"`{name}`" for name, given in by.items() if given)
    found = f"{shown} of {request.k} items: {ranking.eligible} are eligible"
    found += f" by {rules}" if rules else ""
    if shown == ranking.eligible:
        return found
    if shown == len(ranking.rows):
        return f"{found}, of which `at_most` leaves {shown}"
    return f"{found}, but their ids are too long for one event"


# Six parameters: what one draw depends on.
def _draw(
    scorer: Scorer,
    vector: Vector,
    plan: Exploration,
    candidates: Candidates,
    slots: int,
    decision: str,
) -> tuple[SlateItem, ...]:
    """Draw a slate of at most `slots` items, with the randomness of a decision's id.

    It ends early where its event would exceed the wire's limit of bytes; the slots before the end
    keep their propensities.
    """
    ranking = candidates.ranking
    count = len(candidates.newcomers)
    rows = ranking.rows.tolist()
    scores = ranking.scores.tolist()
    pairs = uniforms(decision, schemes.n_uniforms(plan, slots, len(rows), count))
    drawn = schemes.draw(plan, slots, ranking.scores, pairs, count)
    items = []
    bytes_left = wire.ROOM_FOR_SLATE
    for slot, rank in enumerate(drawn.ranks):
        is_newcomer = rank >= len(rows)
        row = candidates.newcomers.row(rank - len(rows)) if is_newcomer else rows[rank]
        item = scorer.item(row)
        bytes_left -= codec.slot_bytes(item.id, is_newcomer)
        if bytes_left < 0:
            break
        items.append(
            SlateItem(
                id=item.id,
                title=item.title,
                score=scorer.score(vector, row) if is_newcomer else scores[rank],
                slot=slot,
                rank=rank,
                explored=drawn.explored[slot],
                propensity=drawn.conditional[slot],
                marginal=drawn.marginal[slot],
                attributes=dict(item.attributes),
                newcomer=is_newcomer,
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
        epsilon=repeated.epsilon,
        pool=len(repeated.ranking.rows),
        eligible=repeated.ranking.eligible,
        greedy=tuple(scorer.item(row).id for row in greedy_rows),
        slate=repeated.slate.items,
        is_identical=repeated.slate.items == slate.items,
    )
