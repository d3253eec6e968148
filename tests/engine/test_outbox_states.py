"""Random courses of recording, sending, failing and restarting: each event has its effect
exactly once."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sanderling.errors import StorageError
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Event, Loss, Outcome
from sanderling.outbox.outbox import Outbox
from sanderling.upload.transport import Response
from sanderling.upload.uploader import Uploader, UploadOptions
from tests.support.fakes import EventFactory, FakeClock, FakeTransport, status, verdicts

Body = tuple[type[Event], str | None, float]


def body(event: Event) -> Body:
    """Return what an event says, without its number."""
    return (type(event), getattr(event, "decision", None), getattr(event, "value", 0.0))


class Courses(RuleBasedStateMachine):
    """A device and a lab; `model` is what the lab must know in the end, by id."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.clock = Path(tempfile.mkdtemp()), FakeClock()
        self.model: dict[str, Body] = {}
        self.lab: dict[str, Event] = {}
        self.decisions: list[Decision] = []
        self.network, self.lives = "ok", 0
        self.transport = FakeTransport(self.answer)
        self.open()

    def open(self) -> None:
        self.lives += 1
        self.outbox = Outbox(self.folder, clock=self.clock)
        self.make = EventFactory(self.outbox.install, start=self.lives << 64 | 1)
        rng = random.Random(self.lives)
        self.uploader = Uploader(
            self.outbox, self.transport, UploadOptions(max_events=3), clock=self.clock, rng=rng
        )

    def answer(self, events: list[Event]) -> Response:
        if self.network == "down":
            raise ConnectionRefusedError
        if self.network == "busy":
            return status(503, retry_after="2")
        taken = events[: 1 + len(events) // 2] if self.network == "half" else events
        for event in taken:
            assert self.lab.setdefault(event.id, event) == event, "one id, two bodies"
        if self.network == "deaf":
            raise TimeoutError
        return verdicts(taken, "ok")

    def keep(self, event: Event) -> Event:
        self.model[event.id] = body(event)
        return event

    @rule(count=st.integers(1, 4))
    def decide(self, count: int) -> None:
        for _ in range(count):
            self.decisions.append(self.make.decision())
            self.outbox.put([self.keep(self.decisions[-1])])

    @rule(which=st.randoms(use_true_random=False), value=st.sampled_from([-1.0, 1.0]))
    def reward(self, which: random.Random, value: float) -> None:
        if self.decisions:
            self.outbox.put_durable(
                [self.keep(self.make.outcome(which.choice(self.decisions), value=value))]
            )

    @rule(times=st.integers(1, 5))
    def repeat(self, times: int) -> None:
        event = self.keep(self.make.observation())
        for _ in range(times):
            self.outbox.put([event])

    @rule(network=st.sampled_from(["ok", "down", "busy", "half", "deaf"]), steps=st.integers(1, 4))
    def send(self, network: str, steps: int) -> None:
        self.network = network
        self.outbox.put_durable([])
        for _ in range(steps):
            self.clock.advance(self.uploader.step())

    @rule()
    def restart(self) -> None:
        self.outbox.close(5.0)
        self.open()

    @rule()
    def refuse_what_is_too_large(self) -> None:
        with pytest.raises(StorageError, match="at most"):
            self.outbox.put_durable([self.make.decision(context="x" * wire.MAX_LINE)])

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        assert set(self.outbox.counters().lost) <= {"unencodable"}

    def teardown(self) -> None:
        self.network = "ok"
        self.outbox.put_durable([])
        while self.outbox.counters().pending:
            self.clock.advance(self.uploader.step())
        self.outbox.close()
        shutil.rmtree(self.folder)
        losses = [event for event in self.lab.values() if isinstance(event, Loss)]
        known = {id: body(event) for id, event in self.lab.items() if not isinstance(event, Loss)}
        assert known == self.model
        assert all(
            event.decision in known for event in self.lab.values() if isinstance(event, Outcome)
        )
        numbers = {event.seq for event in self.lab.values()}
        assert len(numbers) == len(self.lab)
        assert max(numbers, default=0) == len(numbers) + sum(loss.decisions for loss in losses)


def test_any_course_has_the_effect_of_each_event_once():
    """After 25 courses of 30 steps the lab knows each event once, and every number is accounted
    for."""
    run_state_machine_as_test(
        Courses, settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )


@pytest.mark.soak
def test_two_thousand_courses_have_the_effect_of_each_event_once():
    """The same for 2,000 courses of 50 steps."""
    run_state_machine_as_test(
        Courses, settings=settings(max_examples=2000, stateful_step_count=50, deadline=None)
    )


class DeletingCourses(Courses):
    """The broken uploader that deletes what it has sent, whatever the answer."""

    def answer(self, events: list[Event]) -> Response:
        self.outbox.acknowledge([event.id for event in events])
        return super().answer(events)


@pytest.mark.mutant
def test_a_broken_outbox_that_deletes_first_is_found_by_a_course():
    """An outbox that deletes what it has sent is found."""
    short = settings(
        max_examples=25, deadline=None, phases=[Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(DeletingCourses, settings=short)
