"""Decides one slate: ranks the pool, draws from it, and repeats a decision to explain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Arm, Exploration
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.exploration import diversity, newcomers, pins, schemes
from sanderling.exploration.diversity import Relevance
from sanderling.exploration.draw import Draw
from sanderling.exploration.philox import uniforms
from sanderling.ranking.boosts import NO_BOOSTS, Boost
from sanderling.ranking.contexts import Context
from sanderling.ranking.eligibility import Eligibility
from sanderling.ranking.newcomers import NO_NEWCOMERS, Newcomers
from sanderling.ranking.pins import NO_PINS, NOTHING_PINNED, Pins, pins_in_force
from sanderling.ranking.rules import Rule
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import Rows, Scores, SearchResult
from sanderling.slate import Explanation, Slate, SlateItem


class RecommendRequest(NamedTuple):
    """The arguments of one call of `Engine.recommend`."""

    user: str
    k: int
    context: Context

    exclude: tuple[str, ...]
    """Ids of items that may not be shown."""

    at_most: dict[str, int]
    """Caps: how many items of one value of an attribute may be shown."""

    pin: Mapping[int, str] = NO_PINS
    """The ids that the app fixed to slots."""

    where: Rule | None = None
    """The rule that items must meet to be shown."""

    among: tuple[str, ...] | None = None
    """The ids of the only items that may be shown; None for all."""

    earlier: tuple[str, ...] = ()
    """The ids of the items on the pages before, which are not shown again."""

    diversity: float = 0.0
    """How much unlikeness to the items before counts, in [0, 1] (`exploration.diversity`)."""

    boost: tuple[Boost, ...] = NO_BOOSTS
    """What is added to the scores of items before the pool is chosen."""

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
    """The rows of the items that may not be drawn, -1 for ids that have none; pinned ones too."""

    pins: Pins
    """The pinned items that are shown."""

    eligible: Eligibility
    """What may be shown, and what is added to its scores."""

    def row_outside(self, rank: int) -> int:
        """Return the row of a rank behind the pool: a newcomer's or a pinned item's."""
        place = rank - len(self.ranking.rows)
        count = len(self.newcomers)
        return self.newcomers.row(place) if place < count else int(self.pins.rows[place - count])


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

    arm: Arm | None = None
    """The arm of an experiment that the install is in."""

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
    items = _draw(scorer, vector, plan, request, candidates, decision)
    eligible = candidates.ranking.eligible + len(candidates.pins.slots)
    slate = Slate(
        decision,
        request.user,
        pseudonym,
        scorer.bundle.manifest.release,
        items,
        eligible,
        "" if len(items) == request.k else _shortage(request, candidates, eligible, len(items)),
        request.earlier,
    )
    return DecisionRecord(scorer, vector, plan, request, candidates, slate, residual)


def pool_vectors(record: DecisionRecord) -> NDArray[np.float64]:
    """Return the vectors float64 [M, d] of the pool from which a slate was drawn, best first."""
    rows = record.ranking.rows.tolist()
    return np.stack([record.scorer.vector(row) for row in rows]).astype(np.float64)


def is_pool_shaped(record: DecisionRecord) -> bool:
    """Return whether the pool is another than that of the bundle's best items for the user.

    It is without personalization, under caps, rules and boosts, with items that the device added or
    removed, and where an excluded item would have been in it. Nobody can rebuild such a pool from
    the user's events.
    """
    scorer = record.scorer
    request = record.request
    if record.arm is not None and not record.arm.personalized:
        return True
    if request.at_most or request.is_confined or request.boost or scorer.overlay.records:
        return True
    excluded = record.candidates.excluded
    excluded = excluded[excluded >= 0]
    if not len(excluded):
        return False
    scores = record.ranking.scores
    if len(scores) < _pool_size(record.plan, request, record.candidates.pins):
        return True  # every eligible item is in the pool, so each of these would be
    return bool((scorer.scores(record.vector, excluded) >= scores[-1]).any())


def _candidates(
    scorer: Scorer, vector: Vector, plan: Exploration, request: RecommendRequest
) -> Candidates:
    excluded = scorer.rows_of(request.exclude + request.earlier)
    eligible = scorer.all_items
    if request.is_confined or request.boost:
        eligible = scorer.eligible(request.where, request.among, request.boost)
    pinned = NOTHING_PINNED
    if request.pin:
        pinned = pins_in_force(scorer, request.pin, excluded, request.at_most, eligible)
        excluded = np.concatenate([excluded, pinned.rows])
    size = _pool_size(plan, request, pinned)
    ranking = scorer.rank(vector, size, excluded, request.at_most, eligible, pinned.rows)
    if not schemes.has_quota(plan, len(eligible.newcomers)):
        return Candidates(ranking, NO_NEWCOMERS, excluded, pinned, eligible)
    taken = np.concatenate([ranking.rows, pinned.rows]) if request.pin else ranking.rows
    outside = scorer.newcomers_outside(vector, size, excluded, request.at_most, taken, eligible)
    return Candidates(ranking, outside, excluded, pinned, eligible)


def _pool_size(plan: Exploration, request: RecommendRequest, pinned: Pins) -> int:
    """Return of how many items the pool is, unless fewer are eligible."""
    return max(plan.pool, request.k - len(pinned.slots))


def _shortage(request: RecommendRequest, candidates: Candidates, eligible: int, shown: int) -> str:
    """Return why a slate is shorter than its request."""
    by = {
        "where": request.where,
        "among": request.among is not None,
        "after": request.earlier,
        "exclude": request.exclude,
    }
    rules = " and ".join(f"`{name}`" for name, given in by.items() if given)
    found = f"{shown} of {request.k} items: {eligible} are eligible"
    found += f" by {rules}" if rules else ""
    if shown == eligible:
        return found
    if shown == len(candidates.ranking.rows) + len(candidates.pins.slots):
        return f"{found}, of which `at_most` leaves {shown}"
    return f"{found}, but their ids are too long for one event"


# Six parameters: what one slate depends on.
def _draw(
    scorer: Scorer,
    vector: Vector,
    plan: Exploration,
    request: RecommendRequest,
    candidates: Candidates,
    decision: str,
) -> tuple[SlateItem, ...]:
    """Draw the slate of a request, with the randomness of a decision's id.

    It ends early where its event would exceed the wire's limit of bytes; the slots before the end
    keep their propensities.
    """
    ranking = candidates.ranking
    rows = ranking.rows.tolist()
    scores = ranking.scores.tolist()
    inside = len(rows)
    first_pin = inside + len(candidates.newcomers)
    drawn = _drawn_ranks(scorer, plan, request, candidates, decision)
    items = []
    bytes_left = wire.ROOM_FOR_SLATE
    may_be_full = len(drawn.ranks) * codec.MAX_SLOT_BYTES > bytes_left
    for slot, rank in enumerate(drawn.ranks):
        is_outside = rank >= inside
        row = candidates.row_outside(rank) if is_outside else rows[rank]
        id, title, attributes = scorer.item(row)
        if may_be_full:
            bytes_left -= codec.slot_bytes(id, is_outside)
            if bytes_left < 0:
                break
        # Without names, which would take a fifth of the time to make an item.
        items.append(
            SlateItem(
                id,
                title,
                _score(scorer, vector, candidates, row) if is_outside else scores[rank],
                slot,
                rank,
                drawn.explored[slot],
                drawn.conditional[slot],
                drawn.marginal[slot],
                dict(attributes),
                inside <= rank < first_pin,
                rank >= first_pin,
            )
        )
    return tuple(items)


def _score(scorer: Scorer, vector: Vector, candidates: Candidates, row: int) -> float:
    """Return the score of a row outside the pool, its boosts included."""
    boosts = candidates.eligible.boosts
    score = scorer.score(vector, row)
    return score if boosts is None else score + float(boosts.of(np.array([row]))[0])


def pool_boosts(record: DecisionRecord) -> Scores | None:
    """Return what boosts added to the scores of the pool, float64 [M], None without boosts."""
    boosts = record.candidates.eligible.boosts
    return None if boosts is None else boosts.of(record.ranking.rows)


def _drawn_ranks(
    scorer: Scorer,
    plan: Exploration,
    request: RecommendRequest,
    candidates: Candidates,
    decision: str,
) -> Draw:
    """Return the ranks of the slate of a request: of the pool, of newcomers, and of pins."""
    scores = candidates.ranking.scores
    count = len(candidates.newcomers)
    pinned = candidates.pins.slots
    if pinned:
        plan = pins.plan_of_others(plan, pinned)
    slots = min(request.k - len(pinned), len(scores))
    pairs = uniforms(decision, schemes.n_uniforms(plan, slots, len(scores), count))
    if request.diversity:
        vectors = scorer.codes(candidates.ranking.rows), scorer.codes(candidates.pins.rows)
        relevance = Relevance(request.diversity, scores, *vectors)
        drawn = diversity.draw(plan, slots, relevance, pairs, count)
    else:
        drawn = schemes.draw(plan, slots, scores, pairs, count)
    return pins.interleave(drawn, pinned, len(scores) + count) if pinned else drawn


def drawn_again(
    record: DecisionRecord, plan: Exploration, candidates: Candidates
) -> DecisionRecord:
    """Return a decision with its slate drawn by another plan, or from other candidates."""
    scorer, vector, request = record.scorer, record.vector, record.request
    items = _draw(scorer, vector, plan, request, candidates, record.slate.decision)
    slate = replace(record.slate, items=items)
    return record._replace(plan=plan, candidates=candidates, slate=slate)


def greedy_slate(record: DecisionRecord) -> Slate:
    """Return the slate that a decision would have made without exploration."""
    return drawn_again(record, schemes.greedy(record.plan), record.candidates).slate


def explain(record: DecisionRecord) -> Explanation:
    """Repeat a decision, and compare it with the logged one."""
    scorer = record.scorer
    slate = record.slate
    repeated = decide(
        scorer, record.vector, record.plan, record.request, slate.decision, slate.pseudonym
    )
    return Explanation(
        decision=repeated.slate.decision,
        release=repeated.slate.release,
        scheme=record.plan.scheme,
        epsilon=repeated.epsilon,
        pool=len(repeated.ranking.rows),
        eligible=repeated.ranking.eligible,
        greedy=tuple(item.id for item in greedy_slate(record)),
        slate=repeated.slate.items,
        is_identical=repeated.slate.items == slate.items,
    )
