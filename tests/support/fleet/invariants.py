"""Checks the server's events and training examples against the ledgers of all devices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import log2

from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome, StateReset
from sanderling.outbox.shedding import survives
from sanderling_trainer.event_log.examples import Examples
from sanderling_trainer.event_log.reader import EventLog
from tests.support.fleet.eligibility_checks import context_faults, eligibility_faults
from tests.support.fleet.flip_statistics import flip_probability, reward_faults
from tests.support.fleet.ledger import Entry, Ledger, is_default, key_of
from tests.support.naive import rebuildable

EVENT_TYPES = {"decision": Decision, "outcome": Outcome, "observation": Observation}


class Invariants:
    """What must hold after a run, whatever faults it had. Each check yields one line a fault.

    `sent_events` are the events that ever left a device, by id; `delayed_ids` are those of which a
    copy arrived late; `erased` are the installs that the server erased; `log` is what it has.
    """

    def __init__(
        self,
        ledgers: Sequence[Ledger],
        sent_events: Mapping[str, Event],
        delayed_ids: set[str],
        erased: set[str],
        log: EventLog,
    ) -> None:
        self.ledgers = ledgers
        self.delayed_ids = delayed_ids
        self.erased = erased
        self.log = log

        self.events = [event for events in log.events.values() for event in events]
        self.by_key: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            self.by_key[key_of(event)].append(event)
        self.install_by_key = {key_of(event): event.install for event in sent_events.values()}

        self.slates = {id: slate for ledger in ledgers for id, slate in ledger.slates.items()}
        self.eligible = {id: items for ledger in ledgers for id, items in ledger.eligible.items()}
        self.ledger_by_decision = {id: ledger for ledger in ledgers for id in ledger.slates}
        self.damaged = {id for ledger in ledgers for id in ledger.damaged}
        self.incomplete_installs = {
            install for ledger in ledgers for install in ledger.incomplete_installs
        }
        self.entries = {
            entry.key: entry for ledger in ledgers for entry in ledger.entries if entry.key
        }
        self.seen_slots = self._last_seen()

    def _last_seen(self) -> dict[tuple[str, int], Entry]:
        """Return by decision and slot the last "seen" entry, a required one where there is one."""
        seen: dict[tuple[str, int], Entry] = {}
        for ledger in self.ledgers:
            for entry in ledger.entries:
                for slot in entry.slots if entry.kind == "seen" else ():
                    earlier = seen.get((entry.decision, slot), entry)
                    if earlier.status != "required" or entry.status == "required":
                        seen[entry.decision, slot] = entry
        return seen

    def faults(self, examples: Examples, item_rows: Mapping[str, int]) -> list[str]:
        """Return all faults."""
        checks = [
            self._lost_entries(),
            self._crash_gaps(),
            self._duplicates(),
            self._contents(),
            self._orphans(),
            self._default_outcomes(),
            self._sequence_numbers(),
            self._shedding(),
            self._times(),
            self._examples(examples, item_rows),
            eligibility_faults(self.slates, self.eligible, self.events),
            context_faults(self.eligible, self._shares_context, self.events),
        ]
        return [fault for check in checks for fault in check]

    def _is_required(self, entry: Entry) -> bool:
        """Return whether the server must have an entry's event."""
        return entry.status == "required" and self.install_by_key.get(entry.key) not in self.erased

    def _lost_entries(self) -> Iterator[str]:
        """Yield required events that are missing, and rejected ones that are there."""
        for ledger in self.ledgers:
            for entry in ledger.entries:
                is_missing = entry.kind in EVENT_TYPES and entry.key not in self.by_key
                if is_missing and not ledger.sheds and self._is_required(entry):
                    where = "after upload" if entry.key in self.install_by_key else "on the device"
                    yield f"lost {where}: {ledger.name}: {entry.kind} {entry.key} of {entry.user}"
                if entry.status == "rejected" and entry.key in self.by_key:
                    yield f"rejected, but received: {ledger.name}: {entry.key}"

    def _crash_gaps(self) -> Iterator[str]:
        """Yield entries that a crash lost although later ones survived."""
        for ledger in self.ledgers:
            if ledger.sheds:
                continue
            for lost in ledger.crashes:
                keys = [
                    entry.key
                    for entry in lost
                    if entry.kind in EVENT_TYPES
                    and entry.status == "optional"
                    and not entry.exempt
                    and self.install_by_key.get(entry.key) not in self.erased
                ]
                received = [key in self.by_key for key in keys]
                if received != sorted(received, reverse=True):
                    yield f"lost before a later one: {ledger.name}: {keys}, received: {received}"

    def _duplicates(self) -> Iterator[str]:
        """Yield events that were counted more than once."""
        for key, events in self.by_key.items():
            if len(events) > 1:
                yield f"counted {len(events)} times: {key}"

    def _contents(self) -> Iterator[str]:
        """Yield events that differ from their entry."""
        for event in self.events:
            if isinstance(event, Decision):
                slate = self.slates.get(event.id)
                shown = [(i.id, i.rank, i.explored, i.propensity, i.marginal) for i in slate or ()]
                logged = [
                    (s.item, s.rank, s.explored, s.conditional, s.marginal) for s in event.slate
                ]
                if shown != logged:
                    yield f"decision {event.id}: expected slate {shown}, found {logged}"
            elif isinstance(event, StateReset):
                yield from self._unknown_reset_steps(event)
            elif key_of(event) not in self.entries and not key_of(event).startswith("default"):
                yield f"an event without a call of the app: {key_of(event)}"
            elif isinstance(event, Outcome) and event.flip_probability:
                yield from reward_faults(event, self._flip_probability(event.decision))
            elif isinstance(event, Outcome) and not is_default(event):
                entry = self.entries[event.kind]
                expected = entry.decision, entry.slots, entry.value
                logged = event.decision, (event.slot,), event.value
                if logged != expected:
                    yield f"reward {event.kind}: expected {expected}, found {logged}"

    def _unknown_reset_steps(self, reset: StateReset) -> Iterator[str]:
        """Yield state resets whose steps the app did not report in this order."""
        # `in` consumes the iterator, so that later steps are looked for after earlier ones.
        keys = iter([entry.key for entry in self.entries.values()])
        for _, kind in reset.steps:
            if kind not in keys:
                yield f"a state reset with a step that the app did not report: {kind}"

    def _flip_probability(self, decision: str) -> float:
        """Return the flip probability of a decision's rewards, 0 without privacy."""
        privacy = self.ledger_by_decision[decision].privacy
        return flip_probability(privacy) if privacy else 0.0

    def flip_counts(self) -> Counter[tuple[float, bool]]:
        """Count rewards by ε and by whether they were flipped."""
        counts: Counter[tuple[float, bool]] = Counter()
        for event in self.events:
            if isinstance(event, Outcome) and event.flip_probability:
                entry = self.entries.get(key_of(event))
                if entry is not None:
                    is_flipped = (entry.value > 0) != (event.value > 0)
                    counts[self.ledger_by_decision[event.decision].privacy, is_flipped] += 1
        return counts

    def _orphans(self) -> Iterator[str]:
        """Yield outcomes without a decision of the same install and user."""
        for event in self.events:
            if isinstance(event, Outcome) and event.decision not in self.damaged:
                decision = next(iter(self.by_key.get(event.decision, [])), None)
                owner = (decision.install, decision.user) if decision is not None else None
                if owner != (event.install, event.user):
                    yield (
                        f"outcome {key_of(event)}: expected decision {event.decision}"
                        f" of {event.install}, {event.user}, found one of {owner}"
                    )

    def _default_outcomes(self) -> Iterator[str]:
        """Yield missing, repeated and wrong default outcomes."""
        rewarded = {
            (entry.decision, entry.slots[0])
            for ledger in self.ledgers
            for entry in ledger.entries
            if entry.kind == "outcome"
        }
        last: dict[tuple[str, int], Outcome] = {}
        for event in self.events:
            if isinstance(event, Outcome):
                slot = event.decision, event.slot
                if is_default(event) and slot not in self.seen_slots:
                    yield f"default outcome {slot}: expected a seen item"
                if is_default(event) and slot in last:
                    yield f"default outcome {slot}: comes after outcome {last[slot].kind}"
                last[slot] = event
        for slot, entry in self.seen_slots.items():
            install = self.install_by_key.get(entry.decision)
            is_required = entry.status == "required" and install not in (None, *self.erased)
            is_damaged = f"default {slot[0]} {slot[1]}" in self.damaged
            has_outcome = slot in rewarded or slot in last
            may_be_shed = self.ledger_by_decision[entry.decision].sheds
            if is_required and not (has_outcome or is_damaged or may_be_shed):
                yield f"seen slot {slot}: expected a default outcome"

    def _sequence_numbers(self) -> Iterator[str]:
        """Yield installs with missing or surplus numbers."""
        numbers: dict[str, set[int]] = defaultdict(set)
        declared_lost: dict[str, set[int]] = defaultdict(set)
        declared: Counter[str] = Counter()  # lost events of which only the number is declared
        for event in [*self.events, *self.log.losses]:
            numbers[event.install].add(event.seq)
            if isinstance(event, Loss):
                declared_lost[event.install].update(event.lost_seqs or ())
                counted = event.decisions + event.outcomes + event.observations
                declared[event.install] += max(0, counted - len(event.lost_seqs or ()))
        for install, received in numbers.items():
            accounted = len(received | declared_lost[install]) + declared[install]
            if accounted != max(received) and install not in self.incomplete_installs:
                losses = [
                    (loss.reason, loss.decisions, loss.outcomes, loss.observations)
                    for loss in self.log.losses
                    if loss.install == install
                ]
                yield (
                    f"install {install}: expected {max(received)} sequence numbers, found"
                    f" {len(received)} and losses {losses}"
                )
        if self.log.conflicts or self.log.incomplete - self.incomplete_installs:
            yield (
                f"log: {self.log.conflicts} conflicts, {self.log.missing} missing events"
                f" of {set(self.log.incomplete)}"
            )
        for install in sorted(numbers.keys() & self.erased):
            yield f"install {install}: erased, but its events are there"

    def _shedding(self) -> Iterator[str]:
        """Yield undeclared losses and wrong pass probabilities."""
        for event in self.events:
            if isinstance(event, Decision) and not survives(
                event.id, round(-log2(event.pass_probability))
            ):
                yield f"decision {event.id} cannot have passed with {event.pass_probability}"
        for ledger in self.ledgers:
            if not ledger.sheds:
                continue
            installs = {self.install_by_key.get(entry.key) for entry in ledger.entries} - {None}
            losses = [loss for loss in self.log.losses if loss.install in installs]
            for kind in EVENT_TYPES:
                n_lost = sum(
                    entry.kind == kind and self._is_required(entry) and entry.key not in self.by_key
                    for entry in ledger.entries
                )
                n_declared = sum(getattr(loss, f"{kind}s") for loss in losses)
                if n_lost > n_declared:
                    yield f"{ledger.name}: {n_lost} of kind {kind} lost, {n_declared} declared"

    def _times(self) -> Iterator[str]:
        """Yield wrong corrected times of devices whose clock is off by a constant."""
        for ledger in self.ledgers:
            for entry in ledger.entries if ledger.has_steady_clock else ():
                for event in self.by_key.get(entry.key, ()):
                    error = self.log.time[event.id] - entry.wall_ms
                    if abs(error) > 2000 and event.id not in self.delayed_ids:
                        yield f"time: {entry.key}: {error} ms off"

    def _shares_context(self, decision: str) -> bool:
        """Return whether the context of a decision must be uploaded."""
        shares = self.ledger_by_decision[decision].shares_context
        return shares and bool(self.eligible[decision].context)

    def _examples(self, examples: Examples, item_rows: Mapping[str, int]) -> Iterator[str]:
        """Yield training examples that differ from the ledgers."""
        decisions = examples.decisions
        expected = self._expected_examples(item_rows)
        for i in range(len(decisions)):
            slots = [
                (
                    int(decisions.items[i, slot]),
                    float(decisions.conditional[i, slot]),
                    float(decisions.marginal[i, slot]),
                    round(float(decisions.reward[i, slot]), 4)
                    if decisions.judged[i, slot]
                    else None,
                )
                for slot in range(decisions.items.shape[1])
                if decisions.items[i, slot] >= 0
            ]
            example = (
                int(decisions.release[i]),
                int(decisions.eligible[i]),
                round(float(decisions.flip_probability[i]), 4),
                bool(decisions.context[i] >= 0),
                *slots,
            )
            if expected[example] == 0:
                yield f"an example without a decision: {example}"
            expected[example] -= 1
        yield from self._final_decisions()

        n_differing = examples.dropped["state checksum differs"]
        n_rewarded = self._n_rewarded(item_rows)
        if len(decisions) + n_differing < n_rewarded:
            yield f"examples: expected {n_rewarded}, found {len(decisions)}"

        # Only where events were lost, forgotten or erased may a state not be rebuilt.
        is_clean = not any(
            ledger.sheds or any(entry.exempt for entry in ledger.entries) for ledger in self.ledgers
        )
        if is_clean and n_differing:
            yield f"examples: {n_differing} states differ from the rebuilt ones"

    def _final_decisions(self) -> Iterator[str]:
        """Yield final decisions whose state cannot be rebuilt."""
        rebuilt = {id for events in self.log.events.values() for id in rebuildable(events)}
        for ledger in self.ledgers:
            for id in ledger.final_decisions & self.by_key.keys() - rebuilt:
                yield f"{ledger.name}: final decision {id}: its state cannot be rebuilt"

    def _n_rewarded(self, item_rows: Mapping[str, int]) -> int:
        """Return how many decisions have an outcome of an item in the training catalog."""
        rewarded = {
            event.decision
            for event in self.events
            if isinstance(event, Outcome) and event.item in item_rows
        }
        return sum(
            isinstance(event, Decision)
            and event.id in rewarded
            and event.install not in self.incomplete_installs
            for event in self.events
        )

    def _expected_examples(self, item_rows: Mapping[str, int]) -> Counter[object]:
        """Return the expected examples: the last of several rewards of a slot counts."""
        rewards: dict[str, dict[int, float]] = defaultdict(dict)
        for event in self.events:
            if isinstance(event, Outcome) and (is_default(event) or event.flip_probability):
                scale = 1 - 2 * self._flip_probability(event.decision)
                rewards[event.decision][event.slot] = event.value / scale
        for ledger in self.ledgers:
            for entry in ledger.entries:
                if entry.kind == "outcome" and not ledger.privacy and entry.key in self.by_key:
                    rewards[entry.decision][entry.slots[0]] = entry.value
        expected: Counter[object] = Counter()
        for id, slate in self.slates.items():
            if id in self.by_key and id in rewards:
                items = self.eligible[id]
                slots = [
                    (
                        item_rows[item.id],
                        item.propensity,
                        item.marginal or item.propensity,
                        round(rewards[id][item.slot], 4) if item.slot in rewards[id] else None,
                    )
                    for item in slate
                    if item.id in item_rows
                ]
                example = (
                    items.release,
                    len(items.titles),
                    round(self._flip_probability(id), 4),
                    self._shares_context(id),
                    *slots,
                )
                expected[example] += 1
        return expected
