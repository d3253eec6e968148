"""An uploader between an outbox and a fake transport, in virtual time."""

from __future__ import annotations

import random
from pathlib import Path

from sanderling.outbox.outbox import Outbox
from sanderling.upload.uploader import Uploader, UploadOptions
from tests.support.fakes import EventFactory, FakeClock, FakeTransport


class Bench:
    """An outbox with so many observations, an uploader, and a transport that answers as told."""

    def __init__(self, folder: Path, events: int, answer=None, **options) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.outbox = Outbox(folder, clock=self.clock)
        self.make = EventFactory(self.outbox.install)
        self.outbox.put_durable([self.make.observation() for _ in range(events)])
        self.transport = FakeTransport(answer)
        self.uploader = Uploader(
            self.outbox,
            self.transport,
            UploadOptions(**options),
            clock=self.clock,
            rng=random.Random(1),
        )

    def run(self, steps: int) -> None:
        """Step in virtual time, at most so often, until the outbox is empty."""
        for _ in range(steps):
            if self.outbox.counters().pending == 0:
                return
            self.clock.advance(self.uploader.step())

    def pending(self) -> list[int]:
        """Return the sequence numbers that the outbox would send now, in its order."""
        return [pending.seq for pending in self.outbox.oldest(10**6, 2**40)]

    def delivered(self) -> list[int]:
        """Return the sequence numbers that were posted, each once, ascending."""
        return sorted({event.seq for batch in self.transport.batches for event in batch})
