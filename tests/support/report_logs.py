"""Small logs of a fleet for the report: decisions with outcomes of many installs over some days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanderling.events import codec
from sanderling.events.schema import ClockReading, Event, Slot
from sanderling.events.state_checksum import NO_EVENTS
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore
from tests.support.fakes import EventFactory, FakeClock

DAY_MS = 86_400_000
FIRST_DAY = 20_000
ITEMS = 60
SLOTS = 4
POOL = 20
NEWCOMERS = 5
NEWCOMER_RATE = 0.3
BOOT = "b" * 32


def install_of(number: int) -> str:
    """Return the id of an install."""
    return f"{number:032x}"


def user_of(number: int) -> str:
    """Return the pseudonym of an install's user."""
    return f"{number * 2654435761 % 2**128:032x}"


def decision_slots(rng: np.random.Generator, items: Sequence[int], guarded: int) -> list[Slot]:
    """Return slots that explored, that show newcomers, and that did neither."""
    slots = []
    left = NEWCOMERS
    for place, item in enumerate(items):
        kind = "greedy" if place < guarded else str(rng.choice(["greedy", "explored", "newcomer"]))
        if kind == "newcomer":
            chance = NEWCOMER_RATE / left
            rank = POOL + NEWCOMERS - left
            slots.append(Slot(f"item-{item}", rank, True, chance, None, newcomer=True))
            left -= 1
        else:
            slots.append(Slot(f"item-{item}", place, kind == "explored", 0.5, 0.5))
    return slots


def fleet_events(
    installs: int = 24, releases: Sequence[int] = (1, 2), seed: int = 0, **fields: Any
) -> list[Event]:
    """Return the events of a fleet, in the order of each install's numbers: on each day all
    installs have the next release, which shows a longer part of the catalog and gets more clicks.

    fields: more fields of every decision.
    """
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for number in range(1, installs + 1):
        make = EventFactory(install_of(number), number * 10**6)
        seq = 0
        for days, release in enumerate(releases):
            wall = (FIRST_DAY + days) * DAY_MS + number * 1000
            common = {"user": user_of(number), "clock": ClockReading(wall, 5_000, BOOT)}
            for _ in range(3):
                items = rng.choice(ITEMS // 2 * min(2, days + 1), SLOTS, replace=False)
                guarded = int(rng.integers(2))
                slate = decision_slots(rng, items.tolist(), guarded)
                more: dict[str, Any] = {"guarded": guarded} if guarded else {}
                if any(slot.newcomer for slot in slate):
                    more |= {"newcomers": NEWCOMERS, "newcomer_rate": NEWCOMER_RATE}
                decision = make.decision(
                    seq=(seq := seq + 1), release=release, slate=slate, pool=POOL, eligible=ITEMS,
                    epsilon=float(rng.choice([0.0, 0.1])) if not more else 0.1,
                    state_checksum=NO_EVENTS, state_events=0, **common, **more, **fields,
                )  # fmt: skip
                events.append(decision)
                for slot in range(SLOTS - int(rng.integers(2))):
                    value = 1.0 if rng.random() < 0.2 * (days + 1) else -1.0
                    outcome = make.outcome(decision, slot, value, seq=(seq := seq + 1), **common)
                    events.append(outcome)
    return events


def upload(store: Path, events: Iterable[Event]) -> None:
    """Store events as a collector does, each received when it happened."""
    lines = [
        segment_format.encode_line(codec.encode(event), event.clock.wall, event.clock.wall)
        for event in events
    ]
    store.mkdir(parents=True, exist_ok=True)
    if lines:
        name = segment_format.new_file_name("segments", FakeClock())
        LocalObjectStore(store).put(name, segment_format.pack(lines))
