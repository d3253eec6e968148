"""What runs in a process made to be killed: it records, uploads into a file, and notes what it was promised.

Before a line of `promises` is written the call has returned.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sanderling.clock import SystemClock
from sanderling.contract import events as wire
from sanderling.outbox import Outbox
from sanderling.transport import Response
from sanderling.upload import Uploader
from tests.fakes import EventFactory


class FileCollector:
    """Appends every batch to a file before it answers; the way there and the way back take a moment each."""

    outbox: Outbox

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.file = path.open("ab", buffering=0)
        self.file.write(b"\n")  # a kill may have cut the last line short: what follows must stand alone
        self.rng = rng

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        lines = list(wire.unpack(body))
        self.travel()
        self.file.write(b"".join(line + b"\n" for line in lines))
        self.travel()
        rows = [wire.Verdict(wire.decode(line).id, "ok") for line in lines]
        return Response(200, {}, msgspec.json.encode({"verdicts": rows}))

    def travel(self) -> None:
        threading.Event().wait(self.rng.uniform(0, 0.004))


class DeleteFirst(FileCollector):
    """The mutant that deletes before the collector has the batch."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        self.outbox.acknowledge([wire.decode(line).id for line in wire.unpack(body)])
        return super().post(body, headers)


def live(folder: Path, seed: int, mutant: str, ready: int) -> None:
    """Work until killed; says on the descriptor `ready` when the outbox is open."""
    rng = random.Random(seed)
    outbox = Outbox(folder, clock=SystemClock())
    transport = (DeleteFirst if mutant == "delete_first" else FileCollector)(folder / "received", rng)
    transport.outbox = outbox
    uploader = Uploader(outbox, transport, clock=SystemClock(), rng=rng, max_events=rng.choice([1, 3, 20]))
    uploader.start()
    make = EventFactory(outbox.install, start=seed << 64 | 1)
    promises = os.open(folder / "promises", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    durable = outbox.put if mutant == "queue_only" else outbox.put_durable
    os.write(ready, b"!")
    while True:
        decision = make.decision()
        outbox.put([decision])
        outcome = make.outcome(decision)
        durable([outcome])
        os.write(promises, f"{outcome.id} {decision.id}\n".encode())
        uploader.wake()
