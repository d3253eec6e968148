"""An outbox, a fake transport and an uploader between them, in virtual time."""

from __future__ import annotations

import random
from pathlib import Path

from sanderling.outbox.outbox import Outbox
from sanderling.upload.uploader import Uploader
from tests.support.fakes import EventFactory, FakeClock, FakeTransport


class Bench:
    """An outbox with some observations, a fake transport, and an uploader between them."""

    def __init__(self, folder: Path, events: int, answer=None, **options) -> None:
        self.clock, self.folder = FakeClock(), folder
        self.outbox = Outbox(folder, clock=self.clock)
        self.make = EventFactory(self.outbox.install)
        self.outbox.put_durable([self.make.observation() for _ in range(events)])
        self.transport = FakeTransport(answer)
        self.uploader = Uploader(
            self.outbox, self.transport, clock=self.clock, rng=random.Random(1), **options
        )

    def run(self, steps: int) -> None:
        """Step in virtual time until nothing but losses of this test's own making could be left."""
        for _ in range(steps):
            if self.outbox.counters().pending == 0:
                return
            self.clock.advance(self.uploader.step())

    def pending(self) -> list[int]:
        return [pending.seq for pending in self.outbox.oldest(10**6, 2**40)]

    def delivered(self) -> list[int]:
        return sorted({event.seq for batch in self.transport.batches for event in batch})
