"""What a series of kills or power cuts cost: counted from the victims' notes, the collector's file and the outbox."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sanderling.clock import SystemClock
from sanderling.contract import events as wire
from sanderling.contract.events import Event, Loss, Outcome
from sanderling.errors import EventError
from sanderling.outbox import Outbox


@dataclass
class Toll:
    """Rewards promised, events received by the collector; promised rewards lost, rewards without their decision,
    numbers used twice, numbers missing and undeclared.
    """

    promised: int = 0
    received: int = 0
    lost: int = 0
    orphans: int = 0
    clashes: int = 0
    gaps: int = 0
    events: dict[str, Event] = field(default_factory=dict)

    def check(self) -> None:
        """Fail unless all is well."""
        assert (self.lost, self.orphans, self.clashes, self.gaps) == (0, 0, 0, 0)


def count(folder: Path, notes: Path | None = None) -> Toll:
    """Open the outbox of `folder` as its next owner would; promises and the collector's file are in `notes`."""
    toll, notes = Toll(), notes or folder
    outbox = Outbox(folder, clock=SystemClock())
    kept = [pending.line for pending in outbox.oldest(10**6, 2**40)]
    outbox.close()
    received = [line for line in lines(notes / "received") if is_event(line)]
    toll.received = len(received)
    for line in (*received, *kept):
        event = wire.decode(line)
        toll.clashes += toll.events.setdefault(event.id, event) != event
    events = list(toll.events.values())
    numbers = Counter(event.seq for event in events)
    toll.clashes += len(events) - len(numbers)
    declared = sum(loss.decisions + loss.outcomes + loss.observations for loss in events if isinstance(loss, Loss))
    toll.gaps = max(numbers, default=0) - len(numbers) - declared
    promises = [line.split() for line in lines(notes / "promises") if is_promise(line)]
    toll.promised = len(promises)
    toll.lost = sum(not {outcome.decode(), decision.decode()} <= set(toll.events) for outcome, decision in promises)
    toll.orphans = sum(event.decision not in toll.events for event in events if isinstance(event, Outcome))
    return toll


def is_event(line: bytes) -> bool:
    """Tell whether a line is a whole event; a collector killed in a write leaves part of one that it never answered."""
    try:
        wire.decode(line)
    except EventError:
        return False
    return True


def is_promise(line: bytes) -> bool:
    """Tell whether a line is whole: a kill tears what one write appends where it crosses into the next page."""
    return [len(word) for word in line.split(b" ")] == [32, 32]


def lines(path: Path) -> list[bytes]:
    """Return the lines of a log, none when there is no such file."""
    return path.read_bytes().split(b"\n") if path.exists() else []
