"""Explains why a decision shows an item: exact counterfactuals of its score, and how its slot was
drawn.

Everything is computed when it is asked for, from what `recommend` keeps of a decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sanderling.exploration.arms import plan_of
from sanderling.ranking.contexts import with_text
from sanderling.ranking.decision import DecisionRecord, greedy_slate
from sanderling.ranking.reasons_history import States, UserHistory, counterfactuals
from sanderling.ranking.reasons_sentence import sentence_of
from sanderling.ranking.reasons_text import SharedTraits, context_words, item_words
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.reasons import (
    EventReason,
    GreedyChoice,
    PopularityReason,
    Reasons,
    WordReason,
)
from sanderling.slate import SlateItem

EVENTS_WITH_TRAITS = 10
"""The events that raised a score most, of which what they share with the item is named."""

SELECTING_RULES = {"where", "among", "after", "exclude", "at_most"}
"""The rules that keep items out of the pool."""

ROWS_AT_ONCE = 8192
"""Rows whose scores are computed together, which bounds the memory."""


class DecisionInputs(NamedTuple):
    """A decision and what its user's vector was made of."""

    record: DecisionRecord
    history: UserHistory

    context: Vector | None
    """The vector float32 [t + F] of the context (`ranking.contexts`), None without one."""


@dataclass(frozen=True)
class _ScoreOfItem:
    """Scores one row for what the user might have been, as `recommend` does."""

    inputs: DecisionInputs
    row: int

    def __call__(
        self, state: Vector, context: Vector | None, *, with_residual: bool = True
    ) -> float:
        record = self.inputs.record
        if record.arm is not None and not record.arm.personalized:
            return record.scorer.score(record.vector, self.row)
        vector = record.scorer.user_model.user_vector(state, context)
        if with_residual and record.residual is not None:
            vector = vector + record.residual.astype("float32")
        return record.scorer.score(vector, self.row)


def explain_item(inputs: DecisionInputs, item: str) -> Reasons:
    """Return why a decision shows an item; raise `ValueError` where it does not."""
    record = inputs.record
    scorer = record.scorer
    shown, row = _find(record, item)
    score_of = _ScoreOfItem(inputs, row)
    state, steps, n_events = inputs.history
    without = counterfactuals(inputs.history, scorer)
    empty = scorer.user_model.initial_state()
    score = scorer.score(record.vector, row)
    boosts = record.candidates.eligible.boosts
    boost = 0.0 if boosts is None else float(boosts.of(np.array([row]))[0])

    learned = None
    if record.residual is not None:
        learned = score - score_of(state, inputs.context, with_residual=False)
    has_context = inputs.context is not None
    has_older = n_events > len(steps)
    only_known = score_of(without.without_older, inputs.context)
    rules = _rules(record, shown)
    reasons = Reasons(
        decision=record.slate.decision,
        release=record.slate.release,
        item=shown.id,
        title=shown.title or shown.id,
        slot=shown.slot,
        sentence="",
        score=score + boost,
        boost=boost,
        history_effect=score - score_of(empty, inputs.context),
        events=_events(score_of, without.without_event, score),
        events_known=len(steps),
        events_total=n_events,
        older_effect=score - only_known if has_older else 0.0,
        is_exact=without.is_exact,
        popularity=_popularity(scorer, row),
        context_effect=score - score_of(state, None) if has_context else None,
        words=_words(score_of, score),
        learned_effect=learned,
        rank=shown.rank,
        eligible=record.ranking.eligible,
        pool=len(record.ranking.rows),
        scheme=record.plan.scheme,
        epsilon=record.epsilon,
        explored=shown.explored,
        newcomer=shown.newcomer,
        pinned=shown.pinned,
        propensity=shown.propensity,
        marginal=shown.marginal,
        greedy=_greedy(record, shown.slot),
        rules=rules,
        passed_over=_passed_over(record, shown, row) if rules.keys() & SELECTING_RULES else 0,
    )
    return replace(reasons, sentence=sentence_of(reasons))


def _find(record: DecisionRecord, item: str) -> tuple[SlateItem, int]:
    """Return an item of the slate and its row."""
    row = record.scorer.find(item)
    for shown in record.slate:
        if shown.id == item and row is not None:
            return shown, row
    raise ValueError(
        f"item: expected one of the {len(record.slate)} items of decision {record.slate.decision},"
        f" found {item!r:.100}"
    )


def _events(score_of: _ScoreOfItem, states: States, score: float) -> tuple[EventReason, ...]:
    """Return what each known event did to the score; row j of the states [n, c] lacks event j."""
    inputs = score_of.inputs
    scorer = inputs.record.scorer
    steps = inputs.history.steps
    reasons = []
    for j, (item, kind) in enumerate(steps):
        row = scorer.find(item)
        title = "" if row is None else scorer.item(row).title
        effect = score - score_of(states[j], inputs.context)
        reasons.append(EventReason(item, title or item, kind, len(steps) - j, effect))
    reasons.sort(key=lambda reason: (-reason.effect, reason.ago))

    shared = SharedTraits(scorer, score_of.row)
    for place, reason in enumerate(reasons[:EVENTS_WITH_TRAITS]):
        row = scorer.find(reason.item)
        if row is not None and reason.effect > 0.0:
            reasons[place] = replace(reason, shared=shared.with_item(row))
    return tuple(reasons)


def _words(score_of: _ScoreOfItem, score: float) -> tuple[WordReason, ...]:
    inputs = score_of.inputs
    record = inputs.record
    words = item_words(record.scorer, record.vector, score_of.row, score)
    text = record.request.context.text
    context = inputs.context
    if text and context is not None:
        state, t = inputs.history.state, record.scorer.bundle.manifest.sizes.text
        words += context_words(
            record.scorer,
            text,
            score,
            lambda vector: score_of(state, with_text(context, vector, t)),
        )
    return tuple(sorted(words, key=lambda word: -word.effect))


def _popularity(scorer: Scorer, row: int) -> PopularityReason:
    biases = scorer.index.bias
    added = row - len(biases)
    bias = float(biases[row] if added < 0 else scorer.overlay.index.bias[added])
    above_mean = bias - float(np.mean(biases, dtype=np.float64))
    return PopularityReason(bias, above_mean, float(np.mean(biases < np.float32(bias))))


def _greedy(record: DecisionRecord, slot: int) -> GreedyChoice | None:
    slate = greedy_slate(record)
    if slot >= len(slate):
        return None
    item = slate[slot]
    return GreedyChoice(item.id, item.title or item.id, item.score)


def _rules(record: DecisionRecord, shown: SlateItem) -> dict[str, Any]:
    """Return the rules in force in a slot: arguments of `recommend` and settings of the bundle."""
    plan = record.plan
    released = plan_of(record.scorer.bundle.manifest, record.arm)
    rules: dict[str, Any] = {} if record.arm is None else {"arm": record.arm.name}
    request = record.request
    if request.where is not None:
        rules["where"] = msgspec.json.decode(request.where.canonical)
    counts = {"among": request.among, "after": request.earlier, "exclude": request.exclude}
    rules |= {name: len(items) for name, items in counts.items() if items}
    if request.at_most:
        rules["at_most"] = dict(request.at_most)
    if request.boost:
        rules["boost"] = len(request.boost)
    if request.diversity:
        rules["diversity"] = request.diversity
    if shown.pinned:
        return rules | {"pin": shown.id}
    if plan.epsilon == 0.0 and released.epsilon > 0.0:
        rules["greedy"] = True
    if shown.slot < plan.guarded:
        rules["guarded"] = plan.guarded
    elif record.newcomer_rate:
        rules["newcomers"] = record.newcomer_rate
    return rules


def _passed_over(record: DecisionRecord, shown: SlateItem, row: int) -> int:
    """Return how many items of a better score rules kept off the slate's pool; 0 for newcomers and
    pinned items, which are outside the pool."""
    if shown.newcomer or shown.pinned:
        return 0
    scorer = record.scorer
    hidden = scorer.overlay.mask
    bundled = len(scorer.index.rows)
    n = bundled + len(scorer.overlay.added)
    boosts = record.candidates.eligible.boosts
    better = 0
    for start in range(0, n, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, n))
        scores = scorer.scores(record.vector, rows)
        if boosts is not None:
            scores = scores + boosts.of(rows)
        is_better = (scores > shown.score) | ((scores == shown.score) & (rows < row))
        if hidden is not None:
            own = rows < bundled
            is_better[own] &= ~hidden.hidden[rows[own]]
        is_better &= ~np.isin(rows, record.candidates.pins.rows)  # these are shown
        better += int(np.count_nonzero(is_better))
    return better - shown.rank
