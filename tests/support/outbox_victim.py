"""The process that a test kills: it records, uploads into a file, and notes what it was promised.

A line of `promises` is written after the call has returned. Both files of notes continue on a new
line: a kill tears an append where it crosses a page, and what follows must stand alone.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.outbox.database import Database
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from sanderling.upload.transport import Response
from sanderling.upload.uploader import Uploader, UploadOptions
from tests.support.fakes import EventFactory

Passing = Callable[[str], None]
"""Told the name of each point that the victim passes; may end the process."""


@dataclass(frozen=True)
class Life:
    """Where a victim works and writes its notes, what is broken on purpose, and the limit of its
    outbox."""

    folder: Path
    notes: Path
    seed: int
    mutant: str = ""
    limit_bytes: int = 64 * 2**20
    collector: bool = True


class AtOnce(random.Random):
    """Draws no delay: a victim does not live long enough to wait for its first upload."""

    def uniform(self, a: float, b: float) -> float:
        return a


class FileCollector:
    """Appends every batch to a file before it answers; both directions take a moment."""

    def __init__(self, life: Life, outbox: Outbox, rng: random.Random, passing: Passing) -> None:
        self.file = (life.notes / "received").open("ab", buffering=0)
        self.file.write(b"\n")
        self.outbox, self.rng, self.passing = outbox, rng, passing

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        lines = list(codec.unpack(body))
        self.travel("batch on its way")
        self.file.write(b"".join(line + b"\n" for line in lines))
        self.travel("batch taken, answer on its way")
        rows = [wire.EventVerdict(codec.decode(line).id, "ok") for line in lines]
        return Response(200, {}, msgspec.json.encode({"verdicts": rows}))

    def travel(self, point: str) -> None:
        self.passing(point)
        threading.Event().wait(self.rng.uniform(0, 0.004))


class DeleteFirst(FileCollector):
    """The broken device that deletes before the collector has the batch."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        self.outbox.acknowledge([codec.decode(line).id for line in codec.unpack(body)])
        return super().post(body, headers)


def commit_unflushed() -> None:
    """Break the outbox of this process: rewards are committed without a flush."""
    honest = Database.transaction
    Database.transaction = lambda self, durable: honest(self, False)


def live(life: Life, ready: int, passing: Passing = lambda point: None) -> None:
    """Work until killed; write to the descriptor `ready` when the outbox is open."""
    rng = random.Random(life.seed)
    if life.mutant == "unflushed":
        commit_unflushed()
    outbox = Outbox(life.folder, limit_bytes=life.limit_bytes, clock=SystemClock())
    kind = DeleteFirst if life.mutant == "delete_first" else FileCollector
    transport = kind(life, outbox, rng, passing)
    uploader = Uploader(
        outbox,
        transport,
        UploadOptions(max_events=rng.choice([1, 3, 20])),
        clock=SystemClock(),
        rng=AtOnce(),
    )
    if life.collector:
        uploader.start()
    make = EventFactory(outbox.install, start=life.seed << 64 | 1)
    promises = os.open(life.notes / "promises", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(promises, b"\n")
    durable = outbox.put if life.mutant == "queue_only" else outbox.put_durable
    os.write(ready, b"!")
    while True:
        decision = make.decision()
        outbox.put([decision])
        if rng.random() < 0.1:  # long enough for the decision to be committed, unflushed, and sent
            uploader.wake()
            threading.Event().wait(0.05)
        outcome = make.outcome(decision)
        try:
            durable([outcome])
        except StorageError:  # its decision has been shed since
            continue
        os.write(promises, f"{outcome.id} {decision.id}\n".encode())
        passing("promise given")
        uploader.wake()
