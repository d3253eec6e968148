"""Counts what is lost or altered in outboxes and collector logs after kills and power cuts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events.schema import Event, Loss, Outcome
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock

if TYPE_CHECKING:
    from tests.support.collector_life import Device


@dataclass
class CrashStatistics:
    """Counters of which those in `FAULTS` must be zero."""

    FAULTS: ClassVar[tuple[str, ...]] = ("lost",)

    lost: int = 0

    def check(self) -> None:
        """Fail unless all is well."""
        assert not {name: getattr(self, name) for name in self.FAULTS if getattr(self, name)}


@dataclass
class OutboxStatistics(CrashStatistics):
    """Rewards confirmed, events received by the collector; confirmed rewards lost, rewards without
    their decision, numbers used twice, numbers missing and undeclared.
    """

    FAULTS = ("lost", "orphans", "clashes", "gaps")

    confirmed: int = 0
    received: int = 0
    orphans: int = 0
    clashes: int = 0
    gaps: int = 0
    events: dict[str, Event] = field(default_factory=dict)


@dataclass
class CollectorStatistics(CrashStatistics):
    """Events answered; those of them that reading does not give, gives twice or gives altered;
    lost dead letters."""

    FAULTS = ("lost", "twice", "altered", "letters_lost")

    answered: int = 0
    twice: int = 0
    altered: int = 0
    letters_lost: int = 0

    def add(self, other: CollectorStatistics) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def count_outbox(folder: Path, notes: Path | None = None) -> OutboxStatistics:
    """Open the outbox of `folder` as its next owner would, and count.

    The confirmed rewards and the collector's file are in `notes`, by default in `folder`.
    """
    statistics = OutboxStatistics()
    notes = notes or folder
    outbox = Outbox(folder, clock=SystemClock())
    kept = [stored.line for stored in outbox.oldest(10**6, 2**40)]
    outbox.close()
    received = [line for line in lines(notes / "received") if is_event(line)]
    statistics.received = len(received)
    for line in (*received, *kept):
        event = codec.decode(line)
        statistics.clashes += statistics.events.setdefault(event.id, event) != event
    events = list(statistics.events.values())
    numbers = Counter(event.seq for event in events)
    statistics.clashes += len(events) - len(numbers)
    declared = sum(
        loss.decisions + loss.outcomes + loss.observations
        for loss in events
        if isinstance(loss, Loss)
    )
    statistics.gaps = max(numbers, default=0) - len(numbers) - declared
    confirmations = [line.split() for line in lines(notes / "confirmed") if is_confirmation(line)]
    statistics.confirmed = len(confirmations)
    known = set(statistics.events)
    statistics.lost = sum(
        not {outcome.decode(), decision.decode()} <= known for outcome, decision in confirmations
    )
    statistics.orphans = sum(
        event.decision not in statistics.events for event in events if isinstance(event, Outcome)
    )
    return statistics


def count_collector(root: Path, devices: list[Device]) -> CollectorStatistics:
    """Read the log as the lab does, and compare it with what the devices were told."""
    from sanderling_trainer.event_log import (
        segment_format as log_lines,
    )  # the engine's tests run without the trainer
    from sanderling_trainer.event_log.object_store import LocalObjectStore
    from sanderling_trainer.event_log.reader import read_events

    place = LocalObjectStore(root)
    try:
        found = list(read_events(place))
    except EventError:  # a file without its bytes: nothing can be read until somebody removes it
        return CollectorStatistics(lost=sum(len(device.answered) for device in devices))
    times = Counter(seen.event.id for seen in found)
    bodies = {seen.event.id: seen.body for seen in found}
    rows = [
        row for name in place.names(log_lines.DEAD) for row in log_lines.unpack(place.get(name))
    ]
    letters = [msgspec.json.decode(row) for row in rows]
    kept = {json.loads(letter["line"])["id"] for letter in letters}
    statistics = CollectorStatistics()
    for device in devices:
        statistics.answered += len(device.answered)
        statistics.lost += len(device.answered - set(times))
        statistics.twice += sum(times[id] > 1 for id in device.answered)
        statistics.altered += sum(
            bodies.get(id, device.sent[id]) != device.sent[id] for id in device.answered
        )
        statistics.letters_lost += len(device.rejected - kept)
    return statistics


def is_event(line: bytes) -> bool:
    """Tell whether a line is a whole event; a collector killed in a write leaves part of one
    that it never answered."""
    try:
        codec.decode(line)
    except EventError:
        return False
    return True


def is_confirmation(line: bytes) -> bool:
    """Tell whether a line is whole: a kill tears what one write appends where it crosses into
    the next page."""
    return [len(word) for word in line.split(b" ")] == [32, 32]


def lines(path: Path) -> list[bytes]:
    """Return the lines of a log, none when there is no such file."""
    return path.read_bytes().split(b"\n") if path.exists() else []
