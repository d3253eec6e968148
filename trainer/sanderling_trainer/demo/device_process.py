"""Devices of the demo in one process: real engines, and the simulated people who use them.

Each engine has a state folder and an identity of its own. Commands arrive as JSON lines on stdin,
answers leave as JSON lines on stdout. It needs nothing of the lab but the files that it is given.

    {"do": "night", "plan": FILE, "journal": FILE}
    {"do": "update"}
    {"do": "flush", "timeout_s": 60}
    {"do": "quit"}

A journal line is written once the rewards of a visit are durable (`Visit`). A night that finds a
journal continues after its last line, so a killed process can be started again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling import Engine, SlateItem, StorageError, UpdateError
from sanderling.runtime.clock import SystemClock

# Devices of the demo live through days in a minute, and may send 1,000 events a second.
STORE_TIMEOUT_S = 10.0
OUTBOX_BYTES = 512 * 2**20

HOUR_MS = 3_600_000
FIRST_HOUR = 9
HOURS_BETWEEN = 3
FOUND_KIND = "like"


@dataclass(frozen=True)
class DeviceSetup:
    """The arguments of `Engine.open`, and how many devices there are."""

    bundle: str
    state: str
    """Folder in which each device has its state folder."""

    devices: int
    collector: str | None
    """None for devices that send nothing."""

    token: str
    releases: str
    root: str
    """File with the release repository's root metadata."""


@dataclass(frozen=True)
class Person:
    """Somebody who uses a device tonight."""

    name: str

    number: int
    """Row of the table of attractions: which tastes they have."""

    device: int
    """Index of the device in its process."""

    told: list[int]
    """Items that the person names as liked before the first visit."""


@dataclass(frozen=True)
class NightPlan:
    """What happens on the devices of a process in one night."""

    night: int

    start_ms: int
    """Wall ms since 1970 at which the day begins."""

    visits: int
    """Of each person."""

    seed: int

    items: list[str]
    """Ids of the items that exist; an item's number is its place here."""

    attraction: str
    """NumPy file, float32 [people, items]: the probability of a click on an item looked at."""

    examination: list[float]
    """The probability that each slot of a slate is looked at."""

    finds: float
    """The probability that a person finds an item without a slate during a visit."""

    people: list[Person]


class Visit(NamedTuple):
    """One visit whose rewards are durable; items by their number."""

    person: int
    """`Person.number`."""

    visit: int

    decision: str
    """The id of the decision."""

    release: int

    shown: list[int]
    """By slot."""

    clicked: list[int]

    found: int
    """The item that the person found without the slate, -1 for none."""

    recommend_us: float
    reward_ms: float

    def had(self) -> list[int]:
        """Return what the person has had in it, which is not shown again.

        The lab knows it from the person's history, and decisions name their pools where it matters.
        """
        return [*self.clicked, self.found] if self.found >= 0 else self.clicked


class DayClock(SystemClock):
    """The machine's clock, which can be set back so that events carry the date of a past day."""

    def __init__(self) -> None:
        self._behind_ms = 0

    @property
    def is_right(self) -> bool:
        """Whether it shows the true time."""
        return self._behind_ms == 0

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return super().wall_ms() - self._behind_ms

    def set(self, wall_ms: int | None) -> None:
        """Let it go on from this time; None sets it right."""
        self._behind_ms = 0 if wall_ms is None else super().wall_ms() - wall_ms


def main(setup: DeviceSetup, commands: TextIO, answers: TextIO) -> None:
    """Run commands until `quit` or the end of the stream."""
    clock = DayClock()
    with ExitStack() as stack:
        engines = [
            stack.enter_context(_open(setup, number, clock)) for number in range(setup.devices)
        ]
        _answer(answers, "ready")
        for line in commands:
            command = json.loads(line)
            if command["do"] == "night":
                _live(engines, command, clock, answers)
            elif command["do"] == "update":
                _answer(answers, "updated", updates=[_update(engine) for engine in engines])
            elif command["do"] == "flush":
                empty = [engine.flush(command["timeout_s"]) for engine in engines]
                _answer(answers, "flushed", empty=all(empty), counters=_counters(engines))
            else:
                break


def _open(setup: DeviceSetup, number: int, clock: DayClock) -> Engine:
    engine = Engine.open(
        setup.bundle,
        Path(setup.state) / str(number),
        setup.collector,
        setup.token,
        releases=setup.releases,
        root=setup.root,
        outbox_bytes=OUTBOX_BYTES,
        clock=clock,
        # Devices upload when the day is over: the collector corrects the events' times by the
        # difference between its clock and the device's at that moment.
        may_upload=lambda: clock.is_right,
    )
    engine.warm_up()
    return engine


def _live(engines: list[Engine], command: dict[str, Any], clock: DayClock, answers: TextIO) -> None:
    """Let every person make the visits that the journal lacks."""
    plan = msgspec.json.decode(Path(command["plan"]).read_bytes(), type=NightPlan)
    journal = Path(command["journal"])
    had = {person.number: list(person.told) for person in plan.people}
    done = set()
    for entry in read_journal(journal):
        done.add((entry.person, entry.visit))
        had[entry.person] += entry.had()

    attraction = np.load(plan.attraction, mmap_mode="r")
    with journal.open("a", encoding="utf-8") as file:
        for visit in range(plan.visits):
            clock.set(plan.start_ms + (FIRST_HOUR + HOURS_BETWEEN * visit) * HOUR_MS)
            for person in plan.people:
                if (person.number, visit) in done:
                    continue
                engine = engines[person.device]
                if visit == 0:
                    for item in person.told:
                        engine.observe(person.name, plan.items[item], FOUND_KIND)
                seen = had[person.number]
                entry = _visit(engine, plan, person, attraction[person.number], seen, visit)
                seen += entry.had()
                file.write(json.dumps(entry) + "\n")
                file.flush()
                _answer(answers, "step")
    clock.set(None)
    _answer(answers, "lived")


# Six parameters: the device, the person, and what both know.
def _visit(
    engine: Engine,
    plan: NightPlan,
    person: Person,
    attraction: NDArray[np.float32],
    had: list[int],
    visit: int,
) -> Visit:
    """Show a slate, reward what is clicked, and perhaps let the person find something alone."""
    rng = np.random.default_rng([plan.seed, plan.night, person.number, visit])
    number_of = {item: number for number, item in enumerate(plan.items)}
    uniforms = rng.random(len(plan.examination))
    wants_more = rng.random() < plan.finds
    choice = rng.random()

    start = time.perf_counter()
    slate = engine.recommend(
        person.name, len(plan.examination), exclude=[plan.items[item] for item in had]
    )
    recommended = time.perf_counter()

    shown = [number_of[item.id] for item in slate]
    click = uniforms[: len(shown)] < attraction[shown] * plan.examination[: len(shown)]
    values: dict[SlateItem | str, float] = {
        item: 1.0 if hit else -1.0 for item, hit in zip(slate, click, strict=True)
    }
    before = time.perf_counter()
    receipt = engine.reward_all(slate, values, timeout_s=STORE_TIMEOUT_S)
    if not receipt:
        raise StorageError(receipt.reason)
    stored = time.perf_counter()

    clicked = [item for item, hit in zip(shown, click, strict=True) if hit]
    found = _found(attraction, [*had, *shown], choice) if wants_more else -1
    if found >= 0:
        engine.observe(person.name, plan.items[found], FOUND_KIND)
    return Visit(
        person=person.number,
        visit=visit,
        decision=slate.decision,
        release=slate.release,
        shown=shown,
        clicked=clicked,
        found=found,
        recommend_us=(recommended - start) * 1e6,
        reward_ms=(stored - before) * 1e3,
    )


def _found(attraction: NDArray[np.float32], had: list[int], choice: float) -> int:
    """Return an item drawn in proportion to its attraction, -1 where everything was had."""
    left = np.array(attraction, np.float64)
    left[had] = 0.0
    total = np.cumsum(left)
    if total[-1] == 0.0:
        return -1
    return int(np.searchsorted(total, choice * total[-1], side="right"))


def _update(engine: Engine) -> dict[str, Any]:
    start = time.perf_counter()
    error = None
    try:
        engine.update()
    except UpdateError as failure:
        error = str(failure)
    seconds = time.perf_counter() - start
    return {"to": engine.release, "error": error, "seconds": seconds}


def _counters(engines: list[Engine]) -> dict[str, int]:
    """Return the sums over the devices' outboxes."""
    outboxes = [engine.counters()["outbox"] for engine in engines]
    return {
        name: sum(getattr(outbox, name) for outbox in outboxes)
        for name in ("stored", "acknowledged", "pending")
    }


def _answer(answers: TextIO, event: str, **fields: Any) -> None:
    answers.write(json.dumps({"event": event, **fields}) + "\n")
    answers.flush()


def write_plan(plan: NightPlan, path: Path) -> None:
    """Write a plan for the process that carries it out."""
    path.write_text(json.dumps(asdict(plan)), encoding="utf-8")


def read_journal(path: Path) -> Iterator[Visit]:
    """Yield a journal's visits; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, list) and len(entry) == len(Visit._fields):
            yield Visit(*entry)


if __name__ == "__main__":
    main(DeviceSetup(**json.loads(sys.argv[1])), sys.stdin, sys.stdout)
