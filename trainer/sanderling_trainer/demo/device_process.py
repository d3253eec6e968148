"""One device of the demo: a process with a real engine that replays users' ways, told what to do on its stdin.

Commands and answers are JSON lines. Needs nothing of the lab but the plain files that it is given.

    {"do": "replay", "journeys": FILE, "journal": FILE}      {"do": "update"}    {"do": "flush", "timeout_s": 60}
    {"do": "quit"}

A journal line is written when a step's reward was made durable: [journey, step, decision, clicks, shown, recommend µs,
reward ms]. A replay that finds a journal goes on behind it, so that a killed device can be started again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sanderling import Engine, SlateItem, StorageError, UpdateError

OUTBOX_BYTES = (
    512 * 2**20
)  # a device of the demo lives through months in a minute, and may send 1,000 events/s


@dataclass(frozen=True)
class Plan:
    """How a device is set up; `root` is the file with the releases' root metadata."""

    bundle: str
    state: str
    collector: str
    token: str
    releases: str
    root: str
    slots: int


def main(plan: Plan, commands: TextIO, answers: TextIO) -> None:
    """Obey commands until there are none left."""
    with Engine.open(
        plan.bundle,
        plan.state,
        plan.collector,
        plan.token,
        releases=plan.releases,
        root=plan.root,
        share_context=True,
        outbox_bytes=OUTBOX_BYTES,
    ) as engine:
        engine.warm_up()
        _say(answers, "ready", release=engine.release)
        for line in commands:
            command = json.loads(line)
            if command["do"] == "replay":
                _replay(engine, command, plan.slots, answers)
            elif command["do"] == "update":
                _update(engine, answers)
            elif command["do"] == "flush":
                _say(
                    answers,
                    "flushed",
                    empty=engine.flush(command["timeout_s"]),
                    counters=_counters(engine),
                )
            else:
                break


def _replay(engine: Engine, command: dict[str, Any], slots: int, answers: TextIO) -> None:
    with Path(command["journeys"]).open(encoding="utf-8") as file:
        journeys = [json.loads(line) for line in file]
    journal = Path(command["journal"])
    done = {(entry[0], entry[1]) for entry in read_journal(journal)}
    with journal.open("a", encoding="utf-8") as file:
        for number, journey in enumerate(journeys):
            if (number, 0) not in done:
                for item, kind in journey["before"]:
                    engine.observe(journey["user"], item, kind)
            for step in range(len(journey["later"])):
                if (number, step) not in done:
                    entry = _step(engine, journey, step, slots)
                    file.write(json.dumps([number, step, *entry]) + "\n")
                    file.flush()
                    _say(answers, "step")
    _say(answers, "replayed", release=engine.release)


def _step(engine: Engine, journey: dict[str, Any], step: int, slots: int) -> list[Any]:
    later = journey["later"]
    item, kind, _, context = later[step]
    seen = [item for item, _ in journey["before"]] + [item for item, *_ in later[:step]]
    wanted = {item for item, _, liked, _ in later[step:] if liked} - set(seen)
    start = time.perf_counter()
    slate = engine.recommend(journey["user"], slots, context, seen)
    recommended = time.perf_counter()
    values: dict[SlateItem | str, float] = {
        shown: 1.0 if shown.id in wanted else -1.0 for shown in slate
    }
    receipt = engine.reward_all(slate, values, observe=False)
    if not receipt:
        raise StorageError(receipt.reason)
    rewarded = time.perf_counter()
    engine.observe(journey["user"], item, kind)
    clicks = sum(shown.id in wanted for shown in slate)
    return [
        slate.decision,
        clicks,
        len(slate),
        (recommended - start) * 1e6,
        (rewarded - recommended) * 1e3,
    ]


def _update(engine: Engine, answers: TextIO) -> None:
    start = time.perf_counter()
    try:
        found, fault = engine.update(), None
    except UpdateError as error:
        found, fault = None, str(error)
    _say(
        answers,
        "updated",
        to=found,
        fault=fault,
        release=engine.release,
        seconds=time.perf_counter() - start,
    )


def _counters(engine: Engine) -> dict[str, Any]:
    outbox = engine.counters()["outbox"]
    return {
        "stored": outbox.stored,
        "acknowledged": outbox.acknowledged,
        "pending": outbox.pending,
        "lost": outbox.lost,
    }


def _say(answers: TextIO, event: str, **fields: Any) -> None:
    answers.write(json.dumps({"event": event, **fields}) + "\n")
    answers.flush()


def read_journal(path: Path) -> Iterator[list[Any]]:
    """Yield the whole lines of a journal; a last line cut short by a kill is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, list) and len(entry) == 7:
            yield entry


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])), sys.stdin, sys.stdout)
