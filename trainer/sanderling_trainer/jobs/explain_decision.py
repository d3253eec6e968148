"""Replays a logged decision with the bundle that made it, and explains its items."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sanderling.bundle.manifest import Arm, Exploration
from sanderling.bundle.reader import Bundle
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from sanderling.exploration import schemes
from sanderling.exploration.arms import plan_of
from sanderling.ranking import decision as decisions
from sanderling.ranking.boosts import MAX_SUMS, RowBoosts
from sanderling.ranking.contexts import NO_CONTEXT
from sanderling.ranking.decision import Candidates, DecisionRecord, RecommendRequest
from sanderling.ranking.newcomers import NO_NEWCOMERS
from sanderling.ranking.reasons import DecisionInputs, explain_item
from sanderling.ranking.reasons_history import UserHistory
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import Rows, SearchResult
from sanderling.reasons import Reasons
from sanderling.slate import Slate, SlateItem
from sanderling_trainer.event_log.logged_inputs import (
    LoggedDecision,
    Steps,
    find_decision,
    latest_decision,
)
from sanderling_trainer.jobs.night_log import check_events


@dataclass(frozen=True)
class ExplainedSlot:
    """One slot as it was logged, and why it shows its item."""

    shown: SlateItem
    """The item; its score is that of the replay."""

    reasons: Reasons | None
    """None where the state could not be rebuilt, or the bundle lacks the item."""


@dataclass(frozen=True)
class ExplainedDecision:
    """A logged decision, replayed."""

    decision: Decision
    time: int
    """Wall ms since 1970."""

    slots: list[ExplainedSlot]

    is_identical: bool
    """Whether the replayed slate and its probabilities equal the logged ones bit for bit."""

    notes: list[str] = field(default_factory=list)
    """What the log does not know of the decision."""

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        event = self.decision
        return {
            "decision": event.id,
            "install": event.install,
            "user": event.user,
            "time": self.time,
            "release": event.release,
            "scheme": event.scheme,
            "epsilon": event.epsilon,
            "pool": event.pool,
            "eligible": event.eligible,
            "state_events": event.state_events,
            "is_identical": self.is_identical,
            "notes": self.notes,
            "slate": [
                msgspec.to_builtins(slot.shown)
                | {"reasons": slot.reasons.to_dict() if slot.reasons else None}
                for slot in self.slots
            ],
        }


def explain_decision(events: str, bundle: Path, decision: str | None = None) -> ExplainedDecision:
    """Return a decision of a collector's store, replayed with the bundle of its release: by default
    the latest decision of this release.

    Raises `FileNotFoundError` where the folder is missing, `ValueError` for a decision that is not
    in the log or was made by another release or no engine, `BundleError` and `EventError` for
    damaged files.
    """
    check_events(events)
    scorer = Scorer(Bundle.open(bundle))
    release = scorer.bundle.manifest.release
    logged = (
        latest_decision(events, release) if decision is None else find_decision(events, decision)
    )
    if logged.decision.release != release:
        raise ValueError(
            f"{bundle}: expected the bundle of release {logged.decision.release}, which made this"
            f" decision, found release {release}"
        )
    _check_event(logged.decision, scorer)
    if logged.steps is None:
        return _unexplained(logged, scorer)
    return _Replay(logged, logged.steps, scorer).explained()


def _check_event(event: Decision, scorer: Scorer) -> None:
    """Raise `ValueError` for a decision that no engine made: any device may send one."""
    fault = semantic_fault(event)
    context = _context_vector(event) if fault is None else None
    features = scorer.context_features
    width = scorer.bundle.manifest.sizes.text + (features.schema.columns if features else 0)
    if context is not None and len(context) != width:
        fault = f"context: expected {width} numbers, found {len(context)}"
    if len(set(event.boosts or ())) > MAX_SUMS:
        fault = f"boosts: expected at most {MAX_SUMS} different sums"
    if fault is not None:
        raise ValueError(f"decision {event.id}: expected one that an engine made: {fault}")


def _unexplained(logged: LoggedDecision, scorer: Scorer) -> ExplainedDecision:
    """Return a decision as it was logged: without the user's state nothing can be scored."""
    note = (
        "the user's state cannot be rebuilt: events from which it was made are missing, or the"
        " install is cloned; so the slate is shown as it was logged, without scores"
    )
    slots = [ExplainedSlot(item, None) for item in _logged_items(logged.decision, scorer, None)]
    return ExplainedDecision(logged.decision, logged.time, slots, False, [note])


class _Replay:
    """One decision, made again from what the log knows of it."""

    def __init__(self, logged: LoggedDecision, steps: Steps, scorer: Scorer) -> None:
        self._logged = logged
        self._event = logged.decision
        self._scorer = scorer
        self._context = _context_vector(logged.decision)
        state = state_after(steps, scorer)
        self._history = UserHistory(state, steps, len(steps))
        self._arm = _arm(logged.decision, scorer)
        self._vector = scorer.user_model.user_vector(state, self._context)
        if self._arm is not None and not self._arm.personalized:
            self._vector = np.zeros_like(self._vector)

    def explained(self) -> ExplainedDecision:
        """Return the logged slots, each with its reasons, and whether the replay equals them."""
        event = self._event
        replayed = self._decide()
        boosts = replayed.candidates.eligible.boosts
        items = _logged_items(event, self._scorer, self._vector, boosts)
        is_identical = replayed.slate.items == items
        slate = Slate(event.id, event.user, event.user, event.release, items)
        # Excluded ids are not logged, so that more items than were eligible seem to be.
        ranking = replayed.candidates.ranking._replace(eligible=event.eligible)
        candidates = replayed.candidates._replace(ranking=ranking)
        record = replayed._replace(slate=slate, candidates=candidates, arm=self._arm)
        inputs = DecisionInputs(record, self._history, self._context)
        slots = [
            ExplainedSlot(
                item,
                explain_item(inputs, item.id) if self._scorer.find(item.id) is not None else None,
            )
            for item in items
        ]
        notes = self._notes(replayed, is_identical)
        return ExplainedDecision(event, self._logged.time, slots, is_identical, notes)

    def _decide(self) -> DecisionRecord:
        """Decide again, without the items that must have been excluded."""
        event = self._event
        pinned = {slot: shown.item for slot, shown in enumerate(event.slate) if shown.pinned}
        known = {slot: item for slot, item in pinned.items() if self._scorer.find(item) is not None}
        caps = dict(event.caps or {})
        request = RecommendRequest(
            event.user,
            len(event.slate),
            NO_CONTEXT,
            (),
            caps,
            known,
            diversity=event.diversity or 0.0,
        )
        plan = self._plan()

        def decide(request: RecommendRequest) -> DecisionRecord:
            return decisions.decide(self._scorer, self._vector, plan, request, event.id, event.user)

        record = decide(request)
        pool = [self._scorer.item(row).id for row in record.ranking.rows.tolist()]
        # What else was excluded from a boosted pool nobody can tell.
        if event.pool_items and event.pool_items != pool and not event.boosts:
            record = decide(request._replace(exclude=self._excluded(event.pool_items)))
        return decisions.drawn_again(record, plan, self._as_logged(record.candidates))

    def _as_logged(self, candidates: Candidates) -> Candidates:
        """Return candidates with the pool and boosts that were logged, and no newcomers where it
        had none."""
        event = self._event
        if not event.newcomers:
            candidates = candidates._replace(newcomers=NO_NEWCOMERS)
        rows = self._scorer.rows_of(tuple(event.pool_items or ()))
        if not len(rows) or (rows < 0).any():
            return candidates
        scores = self._scorer.scores(self._vector, rows)
        if event.boosts:
            boosts = self._boosts(rows, event.boosts)
            scores += boosts.of(rows)
            eligible = replace(candidates.eligible, boosts=boosts)
            candidates = candidates._replace(eligible=eligible)
            if event.newcomers:
                # Another pool than the replay's has other newcomers outside it.
                taken = np.concatenate([rows, candidates.pins.rows])
                newcomers = self._scorer.newcomers_outside(
                    self._vector, len(rows), candidates.excluded, event.caps or {}, taken, eligible
                )
                candidates = candidates._replace(newcomers=newcomers)
        return candidates._replace(ranking=SearchResult(rows, scores, event.eligible))

    def _boosts(self, rows: Rows, added: list[float]) -> RowBoosts:
        """Return boosts of the rows of a pool; those of other items are not logged."""
        total = np.zeros(self._scorer.bundle.manifest.sizes.items)
        total[rows] = added
        sums, code = np.unique(total, return_inverse=True)
        return RowBoosts(sums, code.ravel().astype(np.uint8))

    def _plan(self) -> Exploration:
        """Return how the decision explored: as its arm or the bundle says, or not at all."""
        event = self._event
        plan = plan_of(self._scorer.bundle.manifest, self._arm)
        is_greedy = event.epsilon == 0.0 and event.scheme != "softmax"
        return schemes.greedy(plan) if is_greedy else plan

    def _excluded(self, pool: list[str]) -> tuple[str, ...]:
        """Return the items of the bundle that are not in a pool but score above its last item."""
        scorer = self._scorer
        known = scorer.rows_of(tuple(pool))
        known = known[known >= 0]
        if not len(known):
            return ()
        everything = np.arange(scorer.bundle.manifest.sizes.items)
        scores = scorer.scores(self._vector, everything)
        is_better = scores >= scores[known].min()
        is_better[known] = False
        return tuple(scorer.item(row).id for row in np.flatnonzero(is_better).tolist())

    def _notes(self, replayed: DecisionRecord, is_identical: bool) -> list[str]:
        """Return what the log does not know, and why the replay may therefore differ."""
        event = self._event
        notes = []
        if event.adapted:
            notes.append("scores lack what the device had learned from rewards: it never leaves it")
        if any(self._scorer.find(shown.item) is None for shown in event.slate):
            notes.append("the bundle lacks items of the slate, which the device had added")
        if is_identical:
            return notes

        n_newcomers = len(replayed.candidates.newcomers)
        causes = [
            reason
            for reason, is_possible in {
                "its context was not shared": event.context is None,
                "items were excluded that its event does not name": not event.pool_items,
                "the app kept newcomers out": n_newcomers != (event.newcomers or 0),
                "the device explored otherwise than the bundle says": (
                    replayed.plan.scheme != event.scheme
                ),
            }.items()
            if is_possible
        ]
        if causes:
            notes.append(f"the replay may differ because {', or '.join(causes)}")
        return notes


def _arm(event: Decision, scorer: Scorer) -> Arm | None:
    """Return the arm of the experiment that the decision names."""
    experiment = scorer.bundle.manifest.experiment
    arms = () if experiment is None else experiment.arms
    return next((arm for arm in arms if arm.name == event.arm), None)


def state_after(steps: Steps, scorer: Scorer) -> Vector:
    """Return the state float32 [c] that these events make of an empty one; unknown items count for
    nothing."""
    state = scorer.user_model.initial_state()
    for item, kind in steps:
        row = scorer.find(item)
        if row is not None:
            state = scorer.user_model.step(state, scorer.vector(row), kind)
    return state


def _context_vector(event: Decision) -> Vector | None:
    if event.context is None:
        return None
    return np.frombuffer(base64.b64decode(event.context), np.float32)


def _logged_items(
    event: Decision, scorer: Scorer, vector: Vector | None, boosts: RowBoosts | None = None
) -> tuple[SlateItem, ...]:
    """Return the slate as it was logged, with scores for a user vector [d], 0 without one."""
    items = []
    for slot, shown in enumerate(event.slate):
        row = scorer.find(shown.item)
        entry = None if row is None else scorer.item(row)
        score = 0.0 if row is None or vector is None else scorer.score(vector, row)
        if boosts is not None and row is not None:
            score += float(boosts.of(np.array([row]))[0])
        items.append(
            SlateItem(
                id=shown.item,
                title=entry.title if entry else "",
                score=score,
                slot=slot,
                rank=shown.rank,
                explored=shown.explored,
                propensity=shown.conditional,
                marginal=shown.marginal,
                attributes=dict(entry.attributes) if entry else {},
                newcomer=bool(shown.newcomer),
                pinned=bool(shown.pinned),
            )
        )
    return tuple(items)
