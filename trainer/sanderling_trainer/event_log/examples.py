"""What a policy learns from the devices' events: decisions, taken at points of histories, and what became of them.

Refuses to know tensors and networks.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import semantic_fault
from sanderling.exploration.sequential import MAX_MARGINAL_SLOTS
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.event_log.state_replay import StateReplay, parts

LONGEST_CONTEXT = (
    2.0  # an encoder's vectors have length 1; far longer ones would overflow what learns from them
)


@dataclass(frozen=True)
class Examples:
    """Histories and the decisions on them; `contexts` float32 [x, t] are the vectors that devices shared; `dropped`
    counts what could not be used, by reason."""

    histories: list[History]
    decisions: Decisions
    contexts: NDArray[np.float32]
    dropped: Counter[str] = field(default_factory=Counter)


def examples_of(log: EventLog, ids: Sequence[str], kinds: Sequence[str], text_dim: int) -> Examples:
    """Rebuild each pseudonym's history from the devices' events, and join decisions with their outcomes.

    Where a state began anew another history of the pseudonym begins. A decision is used when nothing of its install is
    missing, its install is one device, the checksum of the events before it is the one that the device logged, it could
    have been made by an engine, and at least one of its slots was judged; otherwise it is counted in `dropped`. Devices
    may be odd, or mean ill: whatever a log holds, nothing is raised, and an outcome that names another item than its
    slot showed is none.
    """
    row_of = {item: row for row, item in enumerate(ids)}
    builder = _Builder(row_of, {kind: code for code, kind in enumerate(kinds)}, text_dim, log.time)
    unfit = dict.fromkeys(log.incomplete, "install incomplete") | dict.fromkeys(
        log.doubled, "install doubled"
    )
    for group, ((install, _), events) in enumerate(sorted(log.events.items())):
        builder.add(group, events, unfit.get(install))
    return builder.build()


def true_mean(outcome: Outcome) -> float:
    """Return a reward that is right in expectation: where it was flipped with probability p, value / (1 - 2p)."""
    return (
        outcome.value / (1.0 - 2.0 * outcome.flip_probability)
        if outcome.flip_probability
        else outcome.value
    )


class _Builder:
    def __init__(
        self,
        row_of: dict[str, int],
        code_of: dict[str, int],
        text_dim: int,
        time: Mapping[str, int],
    ) -> None:
        self.row_of, self.code_of, self.text_dim, self.time = row_of, code_of, text_dim, time
        self.histories: list[History] = []
        self.taken: list[tuple[int, int, int, int, Decision, dict[int, Outcome]]] = []
        self.contexts: dict[bytes, int] = {}
        self.dropped: Counter[str] = Counter()

    def add(self, group: int, events: Sequence[Event], unfit: str | None = None) -> None:
        """Take one user's events; of an install that is `unfit`, and why, no decision is used."""
        outcomes: dict[str, list[Outcome]] = {}
        for event in events:
            if isinstance(event, Outcome):
                outcomes.setdefault(event.decision, []).append(event)
        for part in parts(events):
            chain = self._chain(part)
            for event in part:
                if isinstance(event, Decision) and unfit:
                    self.dropped[unfit] += 1
                elif isinstance(event, Decision):
                    self._take(group, event, chain, outcomes.get(event.id, []))
            self.histories.append(chain.history(self.code_of))

    def _chain(self, events: Sequence[Event]) -> StateReplay:
        chain = StateReplay(self.row_of)
        for event in events:
            chain.follow(event, self.time.get(event.id, event.clock.wall) // 1000)
        return chain

    def _take(
        self, group: int, decision: Decision, chain: StateReplay, outcomes: list[Outcome]
    ) -> None:
        at, judged = chain.at(decision), self._judged(decision, outcomes)
        if at is None:
            self.dropped["state checksum differs"] += 1
        elif not judged:
            self.dropped["no judged slot" if outcomes else "no outcome"] += 1
        elif (fault := _fault(decision)) is not None:
            self.dropped[fault] += 1
        elif _is_long(vector := _vector(decision)):
            self.dropped["a context that no encoder makes"] += 1
        else:
            self.taken.append(
                (group, len(self.histories), at, self._context(vector), decision, judged)
            )

    def _judged(self, decision: Decision, outcomes: list[Outcome]) -> dict[int, Outcome]:
        """Return the last outcome of each slot, of those that name what the slot showed, where the lab knows it."""
        shown = {
            slot: shown.item
            for slot, shown in enumerate(decision.slate)
            if shown.item in self.row_of
        }
        return {
            outcome.slot: outcome for outcome in outcomes if shown.get(outcome.slot) == outcome.item
        }

    def build(self) -> Examples:
        slots = np.array([len(decision.slate) for *_, decision, _ in self.taken], np.int64)
        m, k = len(self.taken), int(slots.max(initial=1))
        decisions = Decisions(
            history=np.array([history for _, history, *_ in self.taken], np.int64),
            at=np.array([at for _, _, at, *_ in self.taken], np.int64),
            items=np.full((m, k), -1, np.int64),
            logged=np.ones((m, k)),
            conditional=np.ones((m, k)),
            reward=np.zeros((m, k), np.float32),
            judged=np.zeros((m, k), np.bool_),
            context=np.array([context for _, _, _, context, *_ in self.taken], np.int64),
            ranks=np.zeros((m, k), np.int64),
            group=np.array([group for group, *_ in self.taken], np.int64),
            release=self._facts("release", np.int64),
            pool=self._facts("pool", np.int64),
            eligible=self._facts("eligible", np.int64),
            epsilon=self._facts("epsilon", np.float64),
            guarded=np.array([decision.guarded or 0 for *_, decision, _ in self.taken], np.int64),
            flip_probability=np.array(
                [
                    max(told.flip_probability or 0.0 for told in outcomes.values())
                    for *_, outcomes in self.taken
                ]
            ),
            capped=np.array([bool(decision.caps) for *_, decision, _ in self.taken], np.bool_),
            survived=self._facts("pass_probability", np.float64),
            slots=slots,
        )
        for i, (*_, decision, outcomes) in enumerate(self.taken):
            for slot, shown in enumerate(decision.slate):
                decisions.items[i, slot] = self.row_of.get(shown.item, -1)
                decisions.logged[i, slot] = shown.marginal or shown.conditional
                decisions.conditional[i, slot] = shown.conditional
                decisions.ranks[i, slot] = shown.rank
                if slot in outcomes:
                    decisions.reward[i, slot], decisions.judged[i, slot] = (
                        true_mean(outcomes[slot]),
                        True,
                    )
        vectors = [np.frombuffer(vector, np.float32) for vector in self.contexts]
        contexts = np.stack(vectors) if vectors else np.empty((0, self.text_dim), np.float32)
        return Examples(self.histories, decisions, contexts, +self.dropped)

    def _facts(self, name: str, dtype: type) -> NDArray:
        return np.array([getattr(decision, name) for *_, decision, _ in self.taken], dtype)

    def _context(self, vector: NDArray[np.float32] | None) -> int:
        if vector is None:
            return -1
        if len(vector) != self.text_dim:
            self.dropped["context of another width"] += 1
            return -1
        return self.contexts.setdefault(vector.tobytes(), len(self.contexts))


def _fault(decision: Decision) -> str | None:
    """Return why no engine can have made a decision, or why it says too little of its chances, or None."""
    fault = semantic_fault(decision)
    if fault is not None:
        return f"unsound {fault.partition(':')[0]}"
    if len(decision.slate) > MAX_MARGINAL_SLOTS:
        return f"more than {MAX_MARGINAL_SLOTS} slots, which have no marginals"
    return None


def _vector(decision: Decision) -> NDArray[np.float32] | None:
    """Return a sound decision's context."""
    return (
        None
        if decision.context is None
        else np.frombuffer(base64.b64decode(decision.context), np.float32)
    )


def _is_long(vector: NDArray[np.float32] | None) -> bool:
    return vector is not None and bool(
        np.square(vector, dtype=np.float64).sum() > LONGEST_CONTEXT**2
    )
