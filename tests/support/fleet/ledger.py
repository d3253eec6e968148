"""What a device's app was promised, in the order of its calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from sanderling import Slate
from sanderling.events.schema import Decision, Event, Loss, Observation, Outcome, StateReset
from tests.support.fleet.shelf import Choice


@dataclass
class Entry:
    """One call. Its `fate`: `due` must reach the lab, `free` may, `void` was erased, `never`
    refused."""

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
        """Allow the last unflushed entries to be lost, without gaps between."""
        lost = self.entries[self.flushed if power else self.written :]
        for entry in lost:
            entry.fate = "free" if entry.fate == "due" else entry.fate
        self.deaths.append(lost)
        self.flush()

    def erase(self) -> None:
        """Note that the lab erased this install: nothing from before is due."""
        for entry in self.entries:
            entry.fate, entry.excused = "void", True
        self.flush()

    def excuse(self, user: str) -> None:
        """Note that a user was forgotten: what was not sent is gone."""
        for entry in self.entries:
            if entry.user == user and entry.fate == "due":
                entry.fate = "free"
            entry.excused |= entry.user == user

    def rot(self, event: Event) -> None:
        """Note a flipped bit. A damaged `loss` makes the install incomplete."""
        if isinstance(event, Loss):
            self.blind.add(event.install)
        self.rotten.add(key_of(event))
        for entry in self.entries:
            if entry.key == key_of(event):
                entry.fate, entry.excused = "free" if entry.fate == "due" else entry.fate, True


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
