"""What a device's app was promised, in the order of the calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from sanderling import Slate
from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome, StateReset
from tests.support.fleet.shelf import Choice


@dataclass
class Entry:
    """One thing that the engine was told. `due` must reach the lab, `free` may, `void` was
    erased, `never` refused."""

    what: str
    key: str
    user: str
    made_at: int
    decision: str = ""
    slots: tuple[int, ...] = ()
    value: float = 0.0
    fate: str = "due"
    excused: bool = False


@dataclass
class Ledger:
    """All entries of a device. Those before `written` survive a kill, those before `flushed` a
    power cut.

    `privacy` is the ε with which its rewards are flipped, 0 where they are told as they were;
    `shares` tells whether contexts may leave it; `choices` holds what each of its slates could be
    chosen from. `goodbyes` are decisions that were made when all was well again.
    """

    name: str
    sheds: bool = False
    steady: bool = True
    privacy: float = 0.0
    shares: bool = False
    choices: dict[str, Choice] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    slates: dict[str, Slate] = field(default_factory=dict)
    deaths: list[list[Entry]] = field(default_factory=list)
    rotten: set[str] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)
    goodbyes: set[str] = field(default_factory=set)
    written: int = 0
    flushed: int = 0

    def add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def write(self) -> None:
        self.written = len(self.entries)

    def flush(self) -> None:
        self.written = self.flushed = len(self.entries)

    def die(self, power: bool) -> None:
        """What was not on the disk may be gone: the last of it, not one from between."""
        lost = self.entries[self.flushed if power else self.written :]
        for entry in lost:
            entry.fate = "free" if entry.fate == "due" else entry.fate
        self.deaths.append(lost)
        self.flush()

    def erase(self) -> None:
        """The lab has erased this install: nothing from before is owed."""
        for entry in self.entries:
            entry.fate, entry.excused = "void", True
        self.flush()

    def excuse(self, user: str) -> None:
        """The user was forgotten: what was not sent is gone."""
        for entry in self.entries:
            if entry.user == user and entry.fate == "due":
                entry.fate = "free"
            entry.excused |= entry.user == user

    def rot(self, event: Event) -> None:
        """A bit of it flipped. With a declaration goes what it declared: the install is rightly
        named incomplete."""
        if isinstance(event, Loss):
            self.blind.add(event.install)
        self.rotten.add(key_of(event))
        for entry in self.entries:
            if entry.key == key_of(event):
                entry.fate, entry.excused = "free" if entry.fate == "due" else entry.fate, True


def key_of(event: Event) -> str:
    """Return the name under which an event stands in the ledger: an app's own tag, or what
    happened by itself."""
    if isinstance(event, Decision | StateReset | Loss):
        return event.id
    if isinstance(event, Outcome) and event.flip_probability:
        return noisy_key(event.decision, event.slot)
    if is_default(event):
        return f"default {event.decision} {event.slot}"
    assert isinstance(event, Outcome | Observation)
    return event.kind


def noisy_key(decision: str, slot: int) -> str:
    """Return the name of a reward that is told without an app's tag, which would tell what it
    was."""
    return f"noisy {decision} {slot}"


def is_default(event: Event) -> bool:
    """Tell whether an outcome is what the engine says of a slot that was seen and not rewarded."""
    return isinstance(event, Outcome) and event.kind == "skip" and not event.flip_probability
