"""Turns events into training examples: histories, decisions made on them, and their outcomes."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import semantic_fault
from sanderling.exploration.sequential import MAX_MARGINAL_SLOTS
from sanderling.ranking.features import LIMIT
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import SCHEMES, Decisions
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.event_log.state_replay import StateReplay, split_at_resets

# Encoders return vectors of length 1; a far longer one would overflow the network that learns from
# it.
MAX_CONTEXT_NORM = 2.0

SHED = "full"
"""The reason of the losses that shedding declares (docs/EVENTS.md)."""


@dataclass(frozen=True)
class Examples:
    """Training examples of one log."""

    histories: list[History]
    decisions: Decisions
    contexts: NDArray[np.float32]
    """Context vectors that devices shared, float32 [x, t + C]."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of decisions that could not be used, by reason."""
    installs: list[str] = field(default_factory=list)
    """Ids of the installs in the order of their numbers: `group` of decisions, `install` of
    histories.
    """


@dataclass(frozen=True)
class _JoinedDecision:
    """A usable decision, with its place in the arrays of `Examples`."""

    decision: Decision
    outcome_of: dict[int, Outcome]
    """The last valid outcome of each slot that has one."""
    install: int
    """Number of the install: the unit of resampling and of influence."""
    history: int
    """Index into `Examples.histories`."""
    position: int
    """How many events of the history came before the decision."""
    context_row: int
    """Row of `Examples.contexts`, -1 for no context."""
    time: int
    """Seconds since 1970."""


def examples_of(
    log: EventLog,
    ids: Sequence[str],
    kinds: Sequence[str],
    text_dim: int,
    context_features: int = 0,
) -> Examples:
    """Rebuild the histories of all pseudonyms, and join their decisions with the outcomes.

    Where a pseudonym's state was reset another history begins. A decision is used when no event of
    its install is missing, its install is not cloned, the replayed state has the checksum that the
    device logged, an engine can have made the decision, and at least one slot has an outcome;
    otherwise `dropped` counts it. An outcome that names another item than its slot showed is
    ignored. A probability of having survived shedding is believed if a loss of the same install
    declares that decisions were shed; otherwise it counts as 1. Devices may be faulty or malicious:
    no content of a log raises.
    """
    builder = _ExampleBuilder(
        row_of={item: row for row, item in enumerate(ids)},
        code_of={kind: code for code, kind in enumerate(kinds)},
        text_dim=text_dim,
        time=log.time,
        shedding=frozenset(
            loss.install for loss in log.losses if loss.reason == SHED and loss.decisions > 0
        ),
        context_features=context_features,
    )
    unusable = dict.fromkeys(log.incomplete, "install incomplete")
    # Cloned takes precedence: it is the more specific reason.
    unusable |= dict.fromkeys(log.cloned, "install cloned")
    for (install, _), events in sorted(log.events.items()):
        builder.add(install, events, unusable.get(install))
    return builder.build()


def debiased_reward(outcome: Outcome) -> float:
    """Return an unbiased reward: value / (1 - 2p) where it was flipped with probability p."""
    return outcome.value / (1.0 - 2.0 * (outcome.flip_probability or 0.0))


class _ExampleBuilder:
    def __init__(
        self,
        row_of: dict[str, int],
        code_of: dict[str, int],
        text_dim: int,
        time: Mapping[str, int],
        shedding: frozenset[str],
        context_features: int,
    ) -> None:
        self._row_of = row_of
        self._code_of = code_of
        self._text_dim = text_dim
        self._context_features = context_features
        self._time = time
        self._shedding = shedding
        self._installs: list[str] = []
        self._histories: list[History] = []
        self._joined: list[_JoinedDecision] = []
        self._context_rows: dict[bytes, int] = {}
        self._dropped: Counter[str] = Counter()

    def add(self, install: str, events: Sequence[Event], unusable: str | None = None) -> None:
        """Add the events of a pseudonym; `unusable` says why none of its decisions can be used.

        The pseudonyms of an install follow one another.
        """
        if self._installs[-1:] != [install]:
            self._installs.append(install)
        outcomes: dict[str, list[Outcome]] = {}
        for event in events:
            if isinstance(event, Outcome):
                outcomes.setdefault(event.decision, []).append(event)

        for part in split_at_resets(events):
            replay = self._replay(part)
            for event in part:
                if isinstance(event, Decision) and unusable:
                    self._dropped[unusable] += 1
                elif isinstance(event, Decision):
                    self._join(event, replay, outcomes.get(event.id, []))
            history = replay.history(self._code_of)
            self._histories.append(replace(history, install=len(self._installs) - 1))

    def build(self) -> Examples:
        """Return the examples of all pseudonyms that were added."""
        vectors = [np.frombuffer(vector, np.float32) for vector in self._context_rows]
        width = self._text_dim + self._context_features
        contexts = np.stack(vectors) if vectors else np.empty((0, width), np.float32)
        decisions = _decision_columns(self._joined, self._row_of)
        return Examples(self._histories, decisions, contexts, +self._dropped, self._installs)

    def _replay(self, events: Sequence[Event]) -> StateReplay:
        replay = StateReplay(self._row_of)
        for event in events:
            replay.add(event, self._time_of(event))
        return replay

    def _time_of(self, event: Event) -> int:
        return self._time.get(event.id, event.clock.wall) // 1000

    def _join(self, decision: Decision, replay: StateReplay, outcomes: list[Outcome]) -> None:
        position = replay.position_of(decision)
        outcome_of = self._valid_outcomes(decision, outcomes)
        if position is None:
            self._dropped["state checksum differs"] += 1
        elif not outcome_of:
            self._dropped["no judged slot" if outcomes else "no outcome"] += 1
        elif (fault := _fault(decision)) is not None:
            self._dropped[fault] += 1
        elif _is_too_long(vector := _context_vector(decision), self._text_dim):
            self._dropped["context vector too long"] += 1
        else:
            joined = _JoinedDecision(
                decision=self._with_believed_survival(decision),
                outcome_of=outcome_of,
                install=len(self._installs) - 1,
                history=len(self._histories),
                position=position,
                context_row=self._context_row(vector),
                time=self._time_of(decision),
            )
            self._joined.append(joined)

    def _with_believed_survival(self, decision: Decision) -> Decision:
        if decision.pass_probability == 1.0 or decision.install in self._shedding:
            return decision
        self._dropped["pass_probability below 1 without a loss that declares it: counted as 1"] += 1
        return msgspec.structs.replace(decision, pass_probability=1.0)

    def _valid_outcomes(self, decision: Decision, outcomes: list[Outcome]) -> dict[int, Outcome]:
        """Return the last outcome of each slot with a catalog item, of those that name the item."""
        item_of = {
            slot: shown.item
            for slot, shown in enumerate(decision.slate)
            if shown.item in self._row_of
        }
        # Events are in the order of seq, so later outcomes replace earlier ones.
        return {
            outcome.slot: outcome
            for outcome in outcomes
            if item_of.get(outcome.slot) == outcome.item
        }

    def _context_row(self, vector: NDArray[np.float32] | None) -> int:
        if vector is None:
            return -1
        features = self._context_features
        if features and len(vector) == self._text_dim:  # of a release before there were any
            vector = np.concatenate([vector, np.zeros(features, np.float32)])
        if len(vector) != self._text_dim + features:
            self._dropped["context of another width"] += 1
            return -1
        return self._context_rows.setdefault(vector.tobytes(), len(self._context_rows))


def _decision_columns(joined: list[_JoinedDecision], row_of: dict[str, int]) -> Decisions:
    """Return the joined decisions as columns, m x K with K the longest slate."""
    slots = np.array([len(each.decision.slate) for each in joined], np.int64)
    m = len(joined)
    k = int(slots.max(initial=1))

    def column(name: str, dtype: type) -> NDArray:
        return np.array([getattr(each.decision, name) for each in joined], dtype)

    def place(name: str) -> NDArray[np.int64]:
        return np.array([getattr(each, name) for each in joined], np.int64)

    flips = [
        max(outcome.flip_probability or 0.0 for outcome in each.outcome_of.values())
        for each in joined
    ]
    decisions = Decisions(
        history=place("history"),
        position=place("position"),
        items=np.full((m, k), -1, np.int64),
        marginal=np.ones((m, k)),
        conditional=np.ones((m, k)),
        reward=np.zeros((m, k), np.float32),
        judged=np.zeros((m, k), np.bool_),
        context=place("context_row"),
        ranks=np.zeros((m, k), np.int64),
        group=place("install"),
        release=column("release", np.int64),
        pool=column("pool", np.int64),
        eligible=column("eligible", np.int64),
        epsilon=column("epsilon", np.float64),
        guarded=np.array([each.decision.guarded or 0 for each in joined], np.int64),
        flip_probability=np.array(flips),
        capped=np.array([bool(each.decision.caps) for each in joined], np.bool_),
        in_arm=np.array([bool(each.decision.arm) for each in joined], np.bool_),
        diverse=np.array([bool(each.decision.diversity) for each in joined], np.bool_),
        pass_probability=column("pass_probability", np.float64),
        newcomers=np.array([each.decision.newcomers or 0 for each in joined], np.int64),
        newcomer_rate=np.array([each.decision.newcomer_rate or 0.0 for each in joined]),
        newcomer=np.zeros((m, k), np.bool_),
        pinned=np.zeros((m, k), np.bool_),
        slots=slots,
        scheme=np.array([_scheme(each.decision) for each in joined], np.int8),
        seq=column("seq", np.int64),
        time=place("time"),
        pool_items=np.array([_pool_rows(each.decision, row_of) for each in joined], np.object_),
        boosted=np.array([each.decision.boosts is not UNSET for each in joined], np.bool_),
        pool_boosts=np.array([_pool_boosts(each.decision, row_of) for each in joined], np.object_),
    )
    for row, each in enumerate(joined):
        _fill_slots(decisions, row, each, row_of)
    return decisions


def _fill_slots(
    decisions: Decisions, row: int, joined: _JoinedDecision, row_of: dict[str, int]
) -> None:
    for slot, shown in enumerate(joined.decision.slate):
        decisions.items[row, slot] = row_of.get(shown.item, -1)
        # Some exploration schemes give no marginal propensities; the conditional ones stand in for
        # them.
        decisions.marginal[row, slot] = shown.marginal or shown.conditional
        decisions.conditional[row, slot] = shown.conditional
        decisions.ranks[row, slot] = shown.rank
        decisions.newcomer[row, slot] = bool(shown.newcomer)
        decisions.pinned[row, slot] = bool(shown.pinned)
        if slot in joined.outcome_of:
            decisions.reward[row, slot] = debiased_reward(joined.outcome_of[slot])
            decisions.judged[row, slot] = True


def _pool_rows(decision: Decision, row_of: dict[str, int]) -> bytes:
    """Return the logged pool as `Decisions.pool_items` holds it."""
    items = decision.pool_items or []
    return np.array([row_of[item] for item in items if item in row_of], np.int32).tobytes()


def _pool_boosts(decision: Decision, row_of: dict[str, int]) -> bytes:
    """Return what was added to the scores of a logged pool, as `Decisions.pool_boosts` holds it."""
    if not decision.boosts or not decision.pool_items:
        return b""
    boosts = zip(decision.pool_items, decision.boosts, strict=True)
    return np.array([by for item, by in boosts if item in row_of], np.float32).tobytes()


def _scheme(decision: Decision) -> int:
    return SCHEMES.index(decision.scheme) if decision.scheme in SCHEMES else -1


def _fault(decision: Decision) -> str | None:
    """Return why no engine can have made a decision, or it lacks propensities; None if usable."""
    fault = semantic_fault(decision)
    if fault is not None:
        return f"invalid {fault.partition(':')[0]}"
    if len(decision.slate) > MAX_MARGINAL_SLOTS:
        return f"more than {MAX_MARGINAL_SLOTS} slots, which have no marginals"
    return None


def _context_vector(decision: Decision) -> NDArray[np.float32] | None:
    """Return the context vector of a decision without fault."""
    if decision.context is None:
        return None
    return np.frombuffer(base64.b64decode(decision.context), np.float32)


def _is_too_long(vector: NDArray[np.float32] | None, text_dim: int) -> bool:
    """Return whether the text's vector, or one of the features behind it, is none that an engine
    makes."""
    if vector is None:
        return False
    text = np.square(vector[:text_dim], dtype=np.float64).sum()
    features = np.abs(vector[text_dim:]).max(initial=0.0)
    return bool(text > MAX_CONTEXT_NORM**2 or features > LIMIT)
