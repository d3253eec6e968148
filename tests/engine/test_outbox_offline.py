"""A long time without a network: below the limit everything arrives; above it whole decisions
are shed, weighted and counted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Event, Loss, Outcome
from sanderling.outbox.outbox import Outbox
from sanderling.upload.backoff import MAX_BACKOFF_S, MAX_START_DELAY_S, OFFLINE_DELAY_S
from sanderling.upload.transport import NoNetworkError, Response
from sanderling.upload.uploader import IDLE_S, Uploader, UploadOptions
from tests.support.fakes import EventFactory, FakeClock, FakeTransport, verdicts

DAYS, RESTARTS, DECISIONS = 30, 3, 200


class Away(FakeTransport):
    """Raises `trouble` for every batch until `back` is set."""

    def __init__(self, trouble: type[OSError] = ConnectionRefusedError) -> None:
        super().__init__(self.refuse)
        self.trouble, self.back = trouble, False

    def refuse(self, events: list[Event]) -> Response:
        if self.back:
            return verdicts(events, "ok")
        raise self.trouble


@pytest.mark.parametrize(
    ("told", "trouble", "at_most_s"),
    [
        (True, NoNetworkError, OFFLINE_DELAY_S - MAX_START_DELAY_S - IDLE_S),
        (False, NoNetworkError, OFFLINE_DELAY_S),
        (False, ConnectionRefusedError, MAX_BACKOFF_S),
    ],
    ids=["with may_upload", "without a network", "without a collector"],
)
def test_thirty_days_offline_lose_nothing(tmp_path, told, trouble, at_most_s):
    """6,000 decisions over 30 days and 90 restarts arrive, oldest first, once each, within 60 s.

    Where the collector was away the last wait may be longer. With `may_upload` the thread itself
    waits before the first step.
    """
    clock, network = FakeClock(), Away(trouble)
    options = UploadOptions(max_events=200, may_upload=lambda: network.back or not told)
    for life in range(DAYS * RESTARTS):
        outbox = Outbox(tmp_path, clock=clock)
        make = EventFactory(outbox.install, start=life << 64 | 1)
        uploader = Uploader(outbox, network, options, clock=clock, rng=random.Random(life))
        for number in range(DECISIONS // RESTARTS):
            outbox.put([make.decision()])
            clock.advance(86_400 / DECISIONS)
            if number % 16 == 0:
                uploader.step()
        if life < DAYS * RESTARTS - 1:
            outbox.close()
    outbox.put_durable([])
    network.batches, network.back = [], True
    away = clock.mono_ms()
    while outbox.counters().pending:
        clock.advance(uploader.step())
    took = (clock.mono_ms() - away) / 1000
    assert took <= at_most_s
    assert [event.seq for batch in network.batches for event in batch] == list(
        range(1, DAYS * RESTARTS * 66 + 1)
    )
    outbox.close()


COURSES = {
    "two years behind": [-2 * 365 * 86_400],
    "ten years ahead": [10 * 365 * 86_400],
    "an hour back and forth": [-3600, 3600] * 10,
    "never set": [-1_750_000_001],
    "a leap second": [-1],
    "frozen": [0],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_wrong_wall_clock_loses_and_delays_nothing(tmp_path, course):
    """Whatever the wall clock does, no event is lost or expired, and no wait gets longer."""
    clock, network = FakeClock(), Away()
    outbox = Outbox(tmp_path, clock=clock)
    make = EventFactory(outbox.install)
    uploader = Uploader(outbox, network, clock=clock, rng=random.Random(0))
    waits = []
    for number in range(40):
        clock.wall += 1000 * COURSES[course][number % len(COURSES[course])]
        outbox.put_durable(
            [make.observation(clock=wire.ClockReading(clock.wall_ms(), clock.mono, "b" * 32))]
        )
        waits.append(uploader.step())
        clock.mono += round(waits[-1] * 1000)
    assert max(waits) <= MAX_BACKOFF_S
    network.back = True
    while outbox.counters().pending:
        clock.mono += round(uploader.step() * 1000)
    assert [event.seq for event in network.batches[-1]] == list(range(1, 41))
    assert outbox.counters().lost == {}
    outbox.close()


@pytest.mark.parametrize("wrong_s", [-2 * 365 * 86_400, 0, 3600, 10 * 365 * 86_400])
def test_the_lab_can_correct_a_constant_clock_error(tmp_path, wrong_s):
    """Received minus sent plus created is the true time, though the batch was sent by the third
    attempt."""
    true, wrong = FakeClock(), FakeClock(wall_ms=1_750_000_000_000 + 1000 * wrong_s)
    network = Away()
    outbox = Outbox(tmp_path, clock=wrong)
    created = true.wall_ms()
    outbox.put_durable(
        [
            EventFactory(outbox.install).observation(
                clock=wire.ClockReading(wrong.wall, wrong.mono, "b" * 32)
            )
        ]
    )
    uploader = Uploader(outbox, network, clock=wrong, rng=random.Random(0))
    for attempt in range(3):
        network.back = attempt == 2
        delay = uploader.step()
        if attempt < 2:
            true.advance(delay + 500)
            wrong.advance(delay + 500)
    [event] = network.batches[-1]
    sent_at = int(network.headers[-1]["sent-at"])
    assert abs(true.wall_ms() - (sent_at - event.clock.wall) - created) <= 2000
    outbox.close()


def fill_offline(
    folder: Path, events: int, limit: int, seed: int = 0
) -> tuple[float, float, float]:
    """Put so many events, offline; each decision has one outcome, every third a click.

    Return the largest share of the limit that the files took, the relative error of the weighted
    clicks, and its standard error.
    """
    outbox = Outbox(folder, limit_bytes=limit, clock=FakeClock())
    make = EventFactory(outbox.install, start=seed << 64 | 1)
    clicks, most = 0, 0
    for number in range(events // 2):
        decision = make.decision()
        clicked = number % 3 == 0
        clicks += clicked
        outbox.put(
            [
                decision,
                make.outcome(decision, value=1.0 if clicked else -1.0, updates_state=clicked),
            ]
        )
        if number % 1000 == 0:
            outbox.put_durable([], 60)
            most = max(most, sum(path.stat().st_size for path in folder.glob("outbox.db*")))
    outbox.put_durable([], 60)
    kept = [codec.decode(stored.line) for stored in outbox.oldest(10**7, 2**40)]
    outbox.close()
    chance = {event.id: event.pass_probability for event in kept if isinstance(event, Decision)}
    outcomes = [event for event in kept if isinstance(event, Outcome)]
    declared = sum(e.decisions + e.outcomes + e.observations for e in kept if isinstance(e, Loss))
    assert {event.decision for event in outcomes} == set(chance)
    assert max(event.seq for event in kept) == len(kept) + declared
    assert sum(not isinstance(event, Loss) for event in kept) + declared == events
    weights = [1 / chance[event.decision] for event in outcomes if event.value > 0]
    deviation = sum(weight * (weight - 1) for weight in weights) ** 0.5
    return most / limit, sum(weights) / clicks - 1, deviation / clicks


def test_a_full_outbox_keeps_its_limit_and_its_weights(tmp_path):
    """20,000 events in 2 MiB: the files stay within 1.25 x the limit, every loss is declared,
    the weighted clicks add up."""
    size, error, deviation = fill_offline(tmp_path, 20_000, 2 * 2**20)
    assert size <= 1.25
    assert abs(error) <= 3 * deviation <= 0.3


@pytest.mark.soak
def test_a_million_events_offline_keep_the_limit_and_the_weights(tmp_path):
    """A million events in 64 MiB: the same, with a standard error of about 2 %."""
    size, error, deviation = fill_offline(tmp_path, 1_000_000, 64 * 2**20)
    print(
        f"1,000,000 events: {size:.3f} x the limit,"
        f" weighted clicks {100 * error:+.2f} % +- {100 * deviation:.2f} %"
    )
    assert size <= 1.25
    assert abs(error) <= 3 * deviation <= 0.06


@pytest.mark.soak
def test_the_weights_of_twenty_full_devices_are_right_within_one_percent(tmp_path):
    """200,000 events on each of 20 devices, shed to 64 MiB: the weighted clicks are right within
    1 %."""
    results = [fill_offline(tmp_path / str(seed), 200_000, 64 * 2**20, seed) for seed in range(20)]
    error = sum(error for _, error, _ in results) / len(results)
    deviation = sum(deviation**2 for _, _, deviation in results) ** 0.5 / len(results)
    print(f"20 x 200,000 events: weighted clicks {100 * error:+.2f} % +- {100 * deviation:.2f} %")
    assert abs(error) <= 0.01
