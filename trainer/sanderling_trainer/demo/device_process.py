"""One device of the demo: a process with a real engine that replays users' trajectories.

Commands arrive as JSON lines on stdin, answers leave as JSON lines on stdout. It needs nothing of
the lab but the files that it is given.

    {"do": "replay", "trajectories": FILE, "journal": FILE}
    {"do": "update"}
    {"do": "flush", "timeout_s": 60}
    {"do": "quit"}

A journal line is written once a step's rewards are durable (`JournalEntry`). A replay that finds a
journal continues after its last line, so a killed device can be started again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sanderling import Engine, SlateItem, StorageError, UpdateError

# A device of the demo lives through months in a minute, and may send 1,000 events a second.
OUTBOX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class DeviceSetup:
    """The arguments of `Engine.open`, and the slots of a slate."""

    bundle: str
    state: str
    collector: str
    token: str
    releases: str
    root: str
    """File with the release repository's root metadata."""

    slots: int


class JournalEntry(NamedTuple):
    """One step of a replay whose rewards are durable."""

    trajectory: int
    """Its place in the device's file of trajectories."""

    step: int
    decision: str
    """The id of the decision."""

    clicks: int
    shown: int
    """How many slots were filled."""

    recommend_us: float
    reward_ms: float


def main(setup: DeviceSetup, commands: TextIO, answers: TextIO) -> None:
    """Run commands until `quit` or the end of the stream."""
    with Engine.open(
        setup.bundle,
        setup.state,
        setup.collector,
        setup.token,
        releases=setup.releases,
        root=setup.root,
        share_context=True,
        outbox_bytes=OUTBOX_BYTES,
    ) as engine:
        engine.warm_up()
        _answer(answers, "ready", release=engine.release)
        for line in commands:
            command = json.loads(line)
            if command["do"] == "replay":
                _replay(engine, command, setup.slots, answers)
            elif command["do"] == "update":
                _update(engine, answers)
            elif command["do"] == "flush":
                empty = engine.flush(command["timeout_s"])
                _answer(answers, "flushed", empty=empty, counters=_counters(engine))
            else:
                break


def _replay(engine: Engine, command: dict[str, Any], slots: int, answers: TextIO) -> None:
    with Path(command["trajectories"]).open(encoding="utf-8") as file:
        trajectories = [json.loads(line) for line in file]
    journal = Path(command["journal"])
    done = {(entry.trajectory, entry.step) for entry in read_journal(journal)}
    with journal.open("a", encoding="utf-8") as file:
        for number, trajectory in enumerate(trajectories):
            if (number, 0) not in done:
                for item, kind in trajectory["before"]:
                    engine.observe(trajectory["user"], item, kind)
            for step in range(len(trajectory["later"])):
                if (number, step) in done:
                    continue
                entry = _step(engine, trajectory, number, step, slots)
                file.write(json.dumps(entry) + "\n")
                file.flush()
                _answer(answers, "step")
    _answer(answers, "replayed", release=engine.release)


def _step(
    engine: Engine, trajectory: dict[str, Any], number: int, step: int, slots: int
) -> JournalEntry:
    """Recommend, reward by the likes still to come, and observe the event of the step."""
    later = trajectory["later"]
    item, kind, _, context = later[step]
    seen = [item for item, _ in trajectory["before"]] + [item for item, *_ in later[:step]]
    clickable = {item for item, _, liked, _ in later[step:] if liked} - set(seen)

    start = time.perf_counter()
    slate = engine.recommend(trajectory["user"], slots, context, seen)
    recommended = time.perf_counter()

    values: dict[SlateItem | str, float] = {
        shown: 1.0 if shown.id in clickable else -1.0 for shown in slate
    }
    receipt = engine.reward_all(slate, values, observe=False)
    if not receipt:
        raise StorageError(receipt.reason)
    rewarded = time.perf_counter()

    engine.observe(trajectory["user"], item, kind)
    return JournalEntry(
        trajectory=number,
        step=step,
        decision=slate.decision,
        clicks=sum(shown.id in clickable for shown in slate),
        shown=len(slate),
        recommend_us=(recommended - start) * 1e6,
        reward_ms=(rewarded - recommended) * 1e3,
    )


def _update(engine: Engine, answers: TextIO) -> None:
    start = time.perf_counter()
    release = None
    error = None
    try:
        release = engine.update()
    except UpdateError as failure:
        error = str(failure)
    seconds = time.perf_counter() - start
    _answer(answers, "updated", to=release, error=error, release=engine.release, seconds=seconds)


def _counters(engine: Engine) -> dict[str, Any]:
    outbox = engine.counters()["outbox"]
    return {
        "stored": outbox.stored,
        "acknowledged": outbox.acknowledged,
        "pending": outbox.pending,
        "lost": outbox.lost,
    }


def _answer(answers: TextIO, event: str, **fields: Any) -> None:
    answers.write(json.dumps({"event": event, **fields}) + "\n")
    answers.flush()


def read_journal(path: Path) -> Iterator[JournalEntry]:
    """Yield a journal's entries; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, list) and len(entry) == len(JournalEntry._fields):
            yield JournalEntry(*entry)


if __name__ == "__main__":
    main(DeviceSetup(**json.loads(sys.argv[1])), sys.stdin, sys.stdout)
