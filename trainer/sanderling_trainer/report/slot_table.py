"""The event store as columns of slots: one pass over its partitions, then numpy alone.

A slot takes about 30 bytes; the partitions besides take what `event_log.partitions` allows.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome
from sanderling.events.semantics import semantic_fault
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.event_log.history_table import steps_of
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.event_log.state_replay import split_at_resets
from sanderling_trainer.event_log.summary import LogSummary

DAY_MS = 1000 * DAY
SAMPLED_USERS = 100
MIN_STEPS = 3
"""A user of whom less is known says little about a release."""

SLOT = np.dtype(
    [
        ("install", np.int32),
        ("user", np.int32),
        ("release", np.int64),
        ("day", np.int32),
        ("item", np.int32),
        ("arm", np.int32),
        ("slot", np.int16),
        ("explored", np.bool_),
        ("newcomer", np.bool_),
        ("greedy", np.bool_),
        ("judged", np.bool_),
        ("click", np.float32),
    ]
)
"""One slot of one slate. `day` counts days (UTC) since 1970; `explored` is without the newcomers'
quota; `greedy` slots could have explored, but did not; `judged` ones were seen; `click` is 1 or 0,
an unbiased estimate of it under randomized response."""


@dataclass(frozen=True)
class SampledUser:
    """A pseudonymous user, with all that made their state."""

    pseudonym: str
    steps: tuple[tuple[str, str], ...]
    """Item ids and kinds, oldest first."""

    hides_known: bool
    """Whether the last slate showed nothing that the user had had before it."""


@dataclass
class SlotTable:
    """What a store tells of slates, and of events that it lacks."""

    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, SLOT))
    """Of the type `SLOT`, of all installs that are neither incomplete nor cloned."""

    installs: int = 0
    users: int = 0
    items: list[str] = field(default_factory=list)
    """The ids of the items, by code."""

    arms: list[str] = field(default_factory=lambda: [""])
    """The arms of experiments, by code; the first is none."""

    first_seen: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """The day of each item's first mention: on a slate, in a pool, or in an event."""

    eligible: int = 0
    """The most items that were eligible for one slate."""

    experiments: set[str] = field(default_factory=set)
    faulty: Counter[str] = field(default_factory=Counter)
    """Decisions that no engine can have made, by what is wrong."""

    is_noisy: bool = False
    """Whether some rewards came under randomized response."""

    summary: LogSummary = field(default_factory=LogSummary)
    losses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By reason, how many events of each type devices declared as lost."""

    sample: list[SampledUser] = field(default_factory=list)


def read_slots(logs: Iterable[EventLog]) -> SlotTable:
    """Return what the partitions of a log tell; each is read once and let go."""
    builder = _Builder()
    for log in logs:
        builder.add(log)
    return builder.build()


class _Builder:
    def __init__(self) -> None:
        self._table = SlotTable()
        self._chunks: list[NDArray[np.void]] = []
        self._codes: dict[str, int] = {}
        self._first: list[int] = []
        self._arms = {"": 0}
        self._sample: list[tuple[int, SampledUser]] = []

    def add(self, log: EventLog) -> None:
        table = self._table
        table.summary.add(log)
        for loss in log.losses:
            _count_loss(table.losses[loss.reason], loss)

        unusable = log.incomplete | log.cloned
        rows: list[tuple[object, ...]] = []
        installs: dict[str, int] = {}
        for (install, user), events in log.events.items():
            if install in unusable:
                continue
            code = installs.setdefault(install, table.installs + len(installs))
            self._add_user(rows, code, events, log)
            self._offer(user, events)
            table.users += 1
        table.installs += len(installs)
        self._chunks.append(np.array(rows, SLOT))

    def build(self) -> SlotTable:
        table = self._table
        table.rows = np.concatenate([np.zeros(0, SLOT), *self._chunks])
        table.items = list(self._codes)
        table.arms = list(self._arms)
        table.first_seen = np.array(self._first, np.int32)
        table.sample = [user for _, user in sorted(self._sample, key=lambda entry: -entry[0])]
        return table

    def _add_user(
        self, rows: list[tuple[object, ...]], install: int, events: list[Event], log: EventLog
    ) -> None:
        outcomes: dict[str, dict[int, Outcome]] = {}
        for event in events:
            if isinstance(event, Outcome):
                outcomes.setdefault(event.decision, {})[event.slot] = event  # the last one counts
        for event in events:
            day = log.time.get(event.id, event.clock.wall) // DAY_MS
            if isinstance(event, Decision):
                if (fault := semantic_fault(event)) is not None:
                    self._table.faulty[fault.partition(":")[0]] += 1
                    continue
                for item in event.pool_items or ():
                    self._code(item, day)
                rows += self._slots(event, (install, self._table.users), day, outcomes)
            elif isinstance(event, Observation | Outcome):
                self._code(event.item, day)

    def _slots(
        self,
        event: Decision,
        who: tuple[int, int],
        day: int,
        outcomes: dict[str, dict[int, Outcome]],
    ) -> list[tuple[object, ...]]:
        table = self._table
        table.eligible = max(table.eligible, event.eligible)
        if event.experiment:
            table.experiments.add(event.experiment)
        arm = self._arms.setdefault(event.arm or "", len(self._arms))
        of_slot = outcomes.get(event.id, {})
        guarded = event.guarded or 0
        has_explored = event.epsilon > 0.0 or event.scheme == "softmax"
        rows: list[tuple[object, ...]] = []
        for slot, shown in enumerate(event.slate):
            outcome = of_slot.get(slot)
            is_judged = outcome is not None and outcome.item == shown.item
            is_free = slot >= guarded and not shown.pinned
            is_newcomer = bool(shown.newcomer)
            is_explored = shown.explored and not is_newcomer
            is_greedy = is_free and has_explored and not shown.explored
            row = (*who, event.release, day, self._code(shown.item, day), arm, slot, is_explored,
                   is_newcomer, is_greedy, is_judged,
                   self._click(outcome) if is_judged and outcome else 0.0)  # fmt: skip
            rows.append(row)
        return rows

    def _click(self, outcome: Outcome) -> float:
        """Return an unbiased estimate of whether a slot was clicked."""
        is_positive = float(outcome.value > 0.0)
        flip = outcome.flip_probability or 0.0
        if flip:
            self._table.is_noisy = True
        return (is_positive - flip) / (1.0 - 2.0 * flip)

    def _code(self, item: str, day: int) -> int:
        code = self._codes.get(item)
        if code is None:
            code = self._codes[item] = len(self._codes)
            self._first.append(day)
        elif day < self._first[code]:
            self._first[code] = day
        return code

    def _offer(self, pseudonym: str, events: list[Event]) -> None:
        """Keep the users of the smallest pseudonyms, which are random, as a sample."""
        key = -int(pseudonym, 16)
        if len(self._sample) == SAMPLED_USERS and key <= self._sample[0][0]:
            return
        user = _sampled(pseudonym, split_at_resets(events)[-1])
        if user is None:
            return
        if len(self._sample) < SAMPLED_USERS:
            heapq.heappush(self._sample, (key, user))
        else:
            heapq.heapreplace(self._sample, (key, user))


def _sampled(pseudonym: str, events: Sequence[Event]) -> SampledUser | None:
    """Return a user whose state the events since its last reset make; None where they do not."""
    steps = tuple(step for event in events for step in steps_of(event))
    last = next((event for event in reversed(events) if isinstance(event, Decision)), None)
    if last is None or len(steps) < MIN_STEPS or last.state_events > len(steps):
        return None
    before = steps[: last.state_events]
    checksum = reduce(lambda checksum, step: next_checksum(checksum, *step), before, NO_EVENTS)
    if checksum != last.state_checksum:
        return None
    known = {item for item, _ in before}
    return SampledUser(pseudonym, steps, known.isdisjoint(slot.item for slot in last.slate))


def _count_loss(counter: Counter[str], loss: Loss) -> None:
    counter["decisions"] += loss.decisions
    counter["outcomes"] += loss.outcomes
    counter["observations"] += loss.observations
