"""Compares what the lab has in the end with what the apps were promised; one line a fault."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import log2

from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome, StateReset
from sanderling.outbox.shedding import survives
from sanderling_trainer.event_log.examples import Examples
from sanderling_trainer.event_log.reader import EventLog
from tests.support.fleet.choices import choice_faults, context_faults
from tests.support.fleet.ledger import Entry, Ledger, is_default, key_of
from tests.support.fleet.odds import chance, noise_faults
from tests.support.naive import rebuildable

KIND = {"decision": Decision, "outcome": Outcome, "observation": Observation}


class Model:
    """The ledgers of all devices, compared with what the lab has."""

    def __init__(
        self,
        ledgers: Sequence[Ledger],
        left: Mapping[str, Event],
        delayed: set[str],
        erased: set[str],
        log: EventLog,
    ) -> None:
        self.ledgers, self.delayed, self.erased, self.log = ledgers, delayed, erased, log
        self.found = [event for events in log.events.values() for event in events]
        self.at: dict[str, list[Event]] = defaultdict(list)
        for event in self.found:
            self.at[key_of(event)].append(event)
        self.left_as = {key_of(event): event.install for event in left.values()}
        self.installs = {event.install for event in left.values()}
        self.slates = {id: slate for ledger in ledgers for id, slate in ledger.slates.items()}
        self.choices = {id: choice for ledger in ledgers for id, choice in ledger.choices.items()}
        self.whose = {id: ledger for ledger in ledgers for id in ledger.slates}
        self.rotten = {id for ledger in ledgers for id in ledger.rotten}
        self.blind = {install for ledger in ledgers for install in ledger.blind}
        self.known = {
            entry.key: entry for ledger in ledgers for entry in ledger.entries if entry.key
        }
        self.seen: dict[tuple[str, int], Entry] = {}
        for ledger in ledgers:
            for entry in ledger.entries:
                for slot in entry.slots if entry.what == "seen" else ():
                    if (
                        self.seen.get((entry.decision, slot), entry).fate != "due"
                        or entry.fate == "due"
                    ):
                        self.seen[entry.decision, slot] = entry

    def faults(self, examples: Examples, item_rows: Mapping[str, int]) -> list[str]:
        """Return all faults."""
        checks = [
            self._promises(), self._deaths(), self._once(), self._bodies(), self._orphans(), self._defaults(),
            self._numbers(), self._shed(), self._times(), self._examples(examples, item_rows),
            choice_faults(self.slates, self.choices, self.found),
            context_faults(self.choices, self._shares, self.found),
        ]  # fmt: skip
        return [fault for check in checks for fault in check]

    def _owed(self, entry: Entry) -> bool:
        """Return whether an entry must be at the lab."""
        return entry.fate == "due" and self.left_as.get(entry.key) not in self.erased

    def _promises(self) -> Iterator[str]:
        for ledger in self.ledgers:
            for entry in ledger.entries:
                if (
                    entry.what in KIND
                    and not ledger.sheds
                    and self._owed(entry)
                    and entry.key not in self.at
                ):
                    left = (
                        "left the device" if entry.key in self.left_as else "never left the device"
                    )
                    yield f"lost: {ledger.name}: {entry.what} {entry.key} of {entry.user}, {left}"
                if entry.fate == "never" and entry.key in self.at:
                    yield f"refused, and told: {ledger.name}: {entry.key}"

    def _deaths(self) -> Iterator[str]:
        """Yield entries that a crash lost although later ones survived."""
        for ledger in self.ledgers:
            if ledger.sheds:
                continue
            for lost in ledger.deaths:
                told = [
                    entry
                    for entry in lost
                    if entry.what in KIND and not entry.excused and entry.fate == "free"
                ]
                told = [entry for entry in told if self.left_as.get(entry.key) not in self.erased]
                there = [entry.key in self.at for entry in told]
                if there != sorted(there, reverse=True):
                    yield f"lost from between: {ledger.name}: {[entry.key for entry in told]}, of these there: {there}"

    def _once(self) -> Iterator[str]:
        for key, events in self.at.items():
            if len(events) > 1:
                yield f"counted {len(events)} times: {key}"

    def _bodies(self) -> Iterator[str]:
        """Yield events that differ from their entry."""
        for event in self.found:
            if isinstance(event, Decision):
                slate = self.slates.get(event.id)
                shown = [(i.id, i.rank, i.explored, i.propensity, i.marginal) for i in slate or ()]
                told = [
                    (s.item, s.rank, s.explored, s.conditional, s.marginal) for s in event.slate
                ]
                if shown != told:
                    yield f"another slate: {event.id}: shown {shown}, told {told}"
            elif isinstance(event, StateReset):
                yield from self._unknown_steps(event)
            elif key_of(event) not in self.known and not key_of(event).startswith("default"):
                yield f"never said: {key_of(event)}"
            elif isinstance(event, Outcome) and event.flip_probability:
                yield from noise_faults(event, self._chance(event.decision))
            elif isinstance(event, Outcome) and not is_default(event):
                entry = self.known[event.kind]
                if (event.decision, (event.slot,), event.value) != (
                    entry.decision,
                    entry.slots,
                    entry.value,
                ):
                    yield f"another reward: {event.kind}"

    def _unknown_steps(self, restart: StateReset) -> Iterator[str]:
        """Yield state resets whose steps the app did not report in this order."""
        said = iter([entry.key for entry in self.known.values()])
        for _, kind in restart.steps:
            if kind not in said:
                yield f"a state began anew from what was never said: {kind}"

    def _chance(self, decision: str) -> float:
        """Return the flip probability of a decision's rewards, 0 without privacy."""
        privacy = self.whose[decision].privacy
        return chance(privacy) if privacy else 0.0

    def told(self) -> Counter[tuple[float, bool]]:
        """Count rewards by ε and by whether they were flipped."""
        noisy = [
            event for event in self.found if isinstance(event, Outcome) and event.flip_probability
        ]
        return Counter(
            (
                self.whose[event.decision].privacy,
                (self.known[key_of(event)].value > 0) != (event.value > 0),
            )
            for event in noisy
            if key_of(event) in self.known
        )

    def _orphans(self) -> Iterator[str]:
        for event in self.found:
            if isinstance(event, Outcome) and event.decision not in self.rotten:
                decision = next(iter(self.at.get(event.decision, [])), None)
                if decision is None or (decision.install, decision.user) != (
                    event.install,
                    event.user,
                ):
                    yield f"orphan: {key_of(event)} of {event.install}, whose decision {event.decision} is not there"

    def _defaults(self) -> Iterator[str]:
        """Yield missing, repeated and wrong default outcomes."""
        rewarded = {
            (entry.decision, entry.slots[0])
            for ledger in self.ledgers
            for entry in ledger.entries
            if entry.what == "outcome"
        }
        last: dict[tuple[str, int], Outcome] = {}
        for event in self.found:
            if isinstance(event, Outcome):
                slot = event.decision, event.slot
                if is_default(event) and slot not in self.seen:
                    yield f"not seen, and yet judged: {slot}"
                if is_default(event) and slot in last:
                    yield f"a default after an outcome: {slot}, after {last[slot].kind}"
                last[slot] = event
        for slot, entry in self.seen.items():
            owed = entry.fate == "due" and self.left_as.get(entry.decision) not in (
                None,
                *self.erased,
            )
            rotten = f"default {slot[0]} {slot[1]}" in self.rotten
            if (
                owed
                and slot not in rewarded
                and slot not in last
                and not rotten
                and not self._sheds(entry)
            ):
                yield f"seen, and not told: {slot}"

    def _sheds(self, entry: Entry) -> bool:
        return any(ledger.sheds and entry.decision in ledger.slates for ledger in self.ledgers)

    def _numbers(self) -> Iterator[str]:
        """Yield installs with missing or surplus numbers."""
        numbers: dict[str, set[int]] = defaultdict(set)
        named: dict[str, set[int]] = defaultdict(set)
        declared: Counter[str] = Counter()
        for event in [*self.found, *self.log.losses]:
            numbers[event.install].add(event.seq)
            if isinstance(event, Loss):
                named[event.install].update(event.lost_seqs or ())
                counted = event.decisions + event.outcomes + event.observations
                declared[event.install] += max(0, counted - len(event.lost_seqs or ()))
        for install, seen in numbers.items():
            gap = max(seen) - len(seen | named[install]) - declared[install]
            if gap and install not in self.blind:
                why = [
                    (e.reason, e.decisions, e.outcomes, e.observations)
                    for e in self.log.losses
                    if e.install == install
                ]
                yield f"numbers: {install}: {max(seen)} numbers, {len(seen)} there, {declared[install]} declared {why}"
        if self.log.conflicts or self.log.incomplete - self.blind:
            yield f"reading: {self.log.conflicts} conflicts, {self.log.missing} missing of {set(self.log.incomplete)}"
        for install in sorted(numbers.keys() & self.erased):
            yield f"erased, and there: {install}"

    def _shed(self) -> Iterator[str]:
        """Yield undeclared losses and wrong pass probabilities."""
        for event in self.found:
            if isinstance(event, Decision) and not survives(
                event.id, round(-log2(event.pass_probability))
            ):
                yield f"a decision that could not survive: {event.id} with {event.pass_probability}"
        for ledger in self.ledgers:
            if not ledger.sheds:
                continue
            mine = {self.left_as.get(entry.key) for entry in ledger.entries} - {None}
            for what, kind in KIND.items():
                gone = [
                    e
                    for e in ledger.entries
                    if e.what == what and self._owed(e) and e.key not in self.at
                ]
                declared = sum(
                    getattr(loss, what + "s") for loss in self.log.losses if loss.install in mine
                )
                if len(gone) > declared:
                    yield f"gone without a word: {ledger.name}: {len(gone)} {kind.__name__}, {declared} declared"

    def _times(self) -> Iterator[str]:
        """Yield wrong corrected times of devices whose clock is off by a constant."""
        for ledger in self.ledgers:
            for entry in ledger.entries if ledger.steady else ():
                for event in self.at.get(entry.key, ()):
                    error = self.log.time[event.id] - entry.made_at
                    if abs(error) > 2000 and event.id not in self.delayed:
                        yield f"time: {entry.key}: {error} ms off"

    def _shares(self, decision: str) -> bool:
        """Return whether the context of a decision must be uploaded."""
        return self.whose[decision].shares and bool(self.choices[decision].context)

    def _examples(self, examples: Examples, item_rows: Mapping[str, int]) -> Iterator[str]:
        """Yield training examples that differ from the ledgers."""
        taken, expected = examples.decisions, self._expected(item_rows)
        for i in range(len(taken)):
            slots = [slot for slot in range(taken.items.shape[1]) if taken.items[i, slot] >= 0]
            shown = [
                (int(taken.items[i, s]),
                 float(taken.conditional[i, s]), float(taken.marginal[i, s]),
                 round(float(taken.reward[i, s]), 4) if taken.judged[i, s] else None)
                for s in slots
            ]  # fmt: skip
            policy = int(taken.release[i]), int(taken.eligible[i])
            row = (
                *policy,
                round(float(taken.flip_probability[i]), 4),
                bool(taken.context[i] >= 0),
                *shown,
            )
            if expected[row] == 0:
                yield f"an example that nobody made: {row}"
            expected[row] -= 1
        yield from self._last_words()
        wrong = examples.dropped["state checksum differs"]
        judged = self._judged(item_rows)
        if len(taken) + wrong < judged:
            yield f"examples: {len(taken)} of {judged}"
        clean = all(
            not ledger.sheds and not any(e.excused for e in ledger.entries)
            for ledger in self.ledgers
        )
        if clean and wrong:
            yield f"examples: {wrong} states differ from the lab's"

    def _last_words(self) -> Iterator[str]:
        """Yield final decisions whose state cannot be rebuilt."""
        found = {id for events in self.log.events.values() for id in rebuildable(events)}
        for ledger in self.ledgers:
            for id in ledger.goodbyes & self.at.keys() - found:
                yield f"a last decision whose state cannot be rebuilt: {ledger.name}: {id}"

    def _judged(self, item_rows: Mapping[str, int]) -> int:
        """Return how many decisions have a reward for an item that the lab knows."""
        judged = {
            event.decision
            for event in self.found
            if isinstance(event, Outcome) and event.item in item_rows
        }
        fit = [event for event in self.found if event.install not in self.blind]
        return sum(isinstance(event, Decision) and event.id in judged for event in fit)

    def _expected(self, item_rows: Mapping[str, int]) -> Counter[object]:
        """Return the expected examples: the last of several rewards of a slot counts."""
        rewards: dict[str, dict[int, float]] = defaultdict(dict)
        for event in self.found:
            if isinstance(event, Outcome) and (is_default(event) or event.flip_probability):
                rewards[event.decision][event.slot] = event.value / (
                    1 - 2 * self._chance(event.decision)
                )
        for ledger in self.ledgers:
            for entry in ledger.entries:
                if entry.what == "outcome" and not ledger.privacy and entry.key in self.at:
                    rewards[entry.decision][entry.slots[0]] = entry.value
        expected: Counter[object] = Counter()
        for id, slate in self.slates.items():
            if id in self.at and id in rewards:
                choice, told = self.choices[id], rewards[id]
                shown = [
                    (item_rows[i.id], i.propensity, i.marginal or i.propensity,
                     round(told[i.slot], 4) if i.slot in told else None)
                    for i in slate if i.id in item_rows
                ]  # fmt: skip
                policy = choice.release, len(choice.titles)
                expected[(*policy, round(self._chance(id), 4), self._shares(id), *shown)] += 1
        return expected
