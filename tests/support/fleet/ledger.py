"""The expected events of a device: one entry for each call of its app, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from sanderling import Slate
from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome, StateReset
from tests.support.fleet.catalog_model import EligibleItems


@dataclass
class Entry:
    """One call of the app."""

    kind: str
    """"decision", "outcome", "observation" or "seen"."""
    key: str
    """The key of its event (`key_of`); "" for "seen", which makes no event by itself."""
    user: str
    wall_ms: int
    """True time of the call, ms since 1970."""
    decision: str = ""
    slots: tuple[int, ...] = ()
    value: float = 0.0
    status: str = "required"
    """Whether its event is "required" or "optional" on the server; "erased" and "rejected" entries
    are not checked or must be absent."""
    exempt: bool = False
    """Whether its event may be missing where later ones arrived."""


@dataclass
class Ledger:
    """The entries of a device, and what is needed to check its events."""

    name: str
    sheds: bool = False
    """Whether its outbox is so small that it sheds events."""
    has_steady_clock: bool = True
    """Whether its clock is off by a constant."""
    privacy: float = 0.0
    """The ε of randomized response; 0 for exact rewards."""
    shares_context: bool = False
    """Whether contexts may leave the device."""
    eligible: dict[str, EligibleItems] = field(default_factory=dict)
    """By decision."""
    entries: list[Entry] = field(default_factory=list)
    slates: dict[str, Slate] = field(default_factory=dict)
    """By decision."""
    crashes: list[list[Entry]] = field(default_factory=list)
    """For each crash the entries that it may have lost."""
    damaged: set[str] = field(default_factory=set)
    """Keys of events of which a bit was flipped in the outbox."""
    incomplete_installs: set[str] = field(default_factory=set)
    """Installs of which a `Loss` was damaged, so that their sequence numbers have holes."""
    final_decisions: set[str] = field(default_factory=set)
    """Decisions made after all faults had ended; their state must be rebuildable."""
    written: int = 0
    """How many entries survive a killed process."""
    flushed: int = 0
    """How many entries survive a power cut."""

    def add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def mark_written(self) -> None:
        self.written = len(self.entries)

    def mark_flushed(self) -> None:
        self.written = self.flushed = len(self.entries)

    def crash(self, power_cut: bool) -> None:
        """Note a crash: it may lose the newest entries, without gaps between them."""
        lost = self.entries[self.flushed if power_cut else self.written :]
        for entry in lost:
            _make_optional(entry)
        self.crashes.append(lost)
        self.mark_flushed()

    def mark_erased(self) -> None:
        """Note that the server erased this install: no entry so far is required."""
        for entry in self.entries:
            entry.status = "erased"
            entry.exempt = True
        self.mark_flushed()

    def forget_user(self, user: str) -> None:
        """Note that a user was forgotten: events that were not sent are deleted."""
        for entry in self.entries:
            if entry.user == user:
                _make_optional(entry)
                entry.exempt = True

    def mark_damaged(self, event: Event) -> None:
        """Note a flipped bit. A damaged `Loss` makes its install incomplete."""
        if isinstance(event, Loss):
            self.incomplete_installs.add(event.install)
        self.damaged.add(key_of(event))
        for entry in self.entries:
            if entry.key == key_of(event):
                _make_optional(entry)
                entry.exempt = True


def _make_optional(entry: Entry) -> None:
    if entry.status == "required":
        entry.status = "optional"


def key_of(event: Event) -> str:
    """Return the key of an event in the ledger: the app's tag, or one made from its slot."""
    if isinstance(event, Decision | StateReset | Loss):
        return event.id
    if isinstance(event, Outcome) and event.flip_probability:
        return noisy_key(event.decision, event.slot)
    if is_default(event):
        return f"default {event.decision} {event.slot}"
    assert isinstance(event, Outcome | Observation)
    return event.kind


def noisy_key(decision: str, slot: int) -> str:
    """Return the key of a reward with randomized response, which carries no tag."""
    return f"noisy {decision} {slot}"


def is_default(event: Event) -> bool:
    """Return whether an outcome is a default outcome."""
    return isinstance(event, Outcome) and event.kind == "skip" and not event.flip_probability
