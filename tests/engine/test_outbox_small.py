"""Outboxes of a few MiB, offline for long: they go on accepting, and their weights stay right."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Event, Loss, Outcome
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import WriteRequest
from sanderling.upload.uploader import Uploader
from tests.support.fakes import EventFactory, FakeClock, FakeTransport
from tests.support.outboxes import database, n_undeclared, open_store

MIB = 2**20
SLATE = [wire.Slot(f"item-{number:04}", number, False, 0.9, 0.9) for number in range(10)]
N_OTHERS = 4


def unreachable(events: list[Event]) -> None:
    raise ConnectionRefusedError


@dataclass
class Device:
    """A device whose collector never answers: every tenth decision is clicked, and every hundred
    decisions a batch is tried."""

    folder: Path
    limit: int
    seed: int = 0
    n_clicks: int = 0
    refused: list[str] = field(default_factory=list)

    def run(self, n_decisions: int) -> None:
        rng = random.Random(self.seed)
        clock = FakeClock()
        outbox = Outbox(self.folder, limit_bytes=self.limit, clock=clock, threaded=False)
        make = EventFactory(outbox.install, start=self.seed << 64 | 1)
        uploader = Uploader(outbox, FakeTransport(unreachable), clock=clock, rng=rng)
        for number in range(n_decisions):
            decision = make.decision(slate=SLATE)
            outbox.put([decision])
            if rng.random() < 0.1:
                self.n_clicks += 1
                done = outbox.submit([make.outcome(decision)])
                outbox.work()
                self.refused += [str(done.exception())] if done.exception() else []
            if number % 100 == 0:
                outbox.work()
                clock.advance(uploader.step())
        outbox.close()

    def events(self) -> list[Event]:
        """Return what is stored."""
        rows = database(self.folder).execute("SELECT CAST(line AS BLOB) FROM event")
        return [codec.decode(line) for (line,) in rows]


@pytest.mark.parametrize(("mib", "n_decisions"), [(1, 3000), (2, 4500), (4, 7000)])
def test_a_small_outbox_accepts_for_ever_and_weighs_right(tmp_path, mib, n_decisions):
    """Offline with 1 to 4 MiB every click is accepted, unless its decision was shed; the weighted
    decisions and clicks add up; each reason of losses is declared once."""
    device = Device(tmp_path, mib * MIB, seed=mib)
    device.run(n_decisions)
    assert all("was shed" in reason for reason in device.refused)
    events = device.events()
    assert n_undeclared(events) == 0
    reasons = Counter(event.reason for event in events if isinstance(event, Loss))
    assert reasons == {"full": 1}

    weight = {e.id: 1 / e.pass_probability for e in events if isinstance(e, Decision)}
    clicks = [weight[e.decision] for e in events if isinstance(e, Outcome)]
    for weights, truth in ((list(weight.values()), n_decisions), (clicks, device.n_clicks)):
        deviation = sum(each * (each - 1) for each in weights) ** 0.5
        assert abs(sum(weights) - truth) < 3 * deviation < 1.5 * truth


@pytest.mark.soak
def test_a_hundred_thousand_decisions_fit_a_mebibyte(tmp_path):
    """Offline with 1 MiB even the last of 100,000 decisions are accepted."""
    device = Device(tmp_path, MIB)
    device.run(100_000)
    assert all("was shed" in reason for reason in device.refused)
    assert sum(isinstance(event, Loss) for event in device.events()) == 1


@pytest.mark.soak
def test_the_weights_of_forty_small_devices_are_right(tmp_path):
    """On 40 devices of 1 MiB the weighted clicks are right within three standard errors."""
    told = truth = variance = 0.0
    for seed in range(40):
        device = Device(tmp_path / str(seed), MIB, seed)
        device.run(6000)
        events = device.events()
        weight = {e.id: 1 / e.pass_probability for e in events if isinstance(e, Decision)}
        clicks = [weight[e.decision] for e in events if isinstance(e, Outcome)]
        told += sum(clicks)
        truth += device.n_clicks
        variance += sum(each * (each - 1) for each in clicks)
    print(f"{told:.0f} of {truth:.0f} clicks, standard error {variance**0.5:.0f}")
    assert abs(told - truth) < 3 * variance**0.5 < 0.2 * truth


def test_a_failed_batch_takes_a_sixteenth_of_the_outbox(tmp_path):
    """What a try hands out, which is never shed again, stays small in a small outbox."""
    Device(tmp_path, MIB).run(2000)
    sent = database(tmp_path).execute(
        "SELECT sum(length(line)) FROM event, meta WHERE event.seq <= meta.sent_seq"
    )
    assert 0 < sent.get <= MIB / 16


def test_declarations_of_one_reason_are_added_up(tmp_path):
    """Losses of several writes are one declaration, after all that it declares, across a
    restart; one that was sent stays as it is."""
    store = open_store(tmp_path)
    make = EventFactory(store.header.install)
    for _ in range(3):
        store.drop("queue_full", [make.observation(), make.observation()])
        store.write([WriteRequest([make.observation() for _ in range(N_OTHERS)], {})], durable=True)
    store.close()

    store = open_store(tmp_path)
    store.drop("queue_full", [make.decision()])
    store.write([], durable=True)
    [loss] = [event for event in decoded(store) if isinstance(event, Loss)]
    assert (loss.observations, loss.decisions) == (6, 1)
    assert loss.seq == store.header.seq == 3 * N_OTHERS + 7 + 1
    assert n_undeclared(decoded(store)) == 0

    store.mark_sent(loss.seq)
    store.drop("queue_full", [make.decision()])
    store.write([], durable=True)
    assert loss in decoded(store)
    assert sum(isinstance(event, Loss) for event in decoded(store)) == 2
    assert n_undeclared(decoded(store)) == 0
    store.close()


def test_a_declaration_counts_only_numbers_below_its_own(tmp_path):
    """Whatever was shed, in however many passes, lies below the one declaration of it."""
    device = Device(tmp_path, MIB // 4)
    device.run(2000)
    events = device.events()
    [loss] = [event for event in events if isinstance(event, Loss)]
    below = sum(event.seq < loss.seq for event in events)
    assert loss.decisions + loss.outcomes + loss.observations == loss.seq - 1 - below


def decoded(store) -> list[Event]:
    return [codec.decode(row.line) for row in store.rows("true ORDER BY seq")]
