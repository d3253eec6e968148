"""Decisions whose events are built when they are written."""

from __future__ import annotations

from sanderling import Engine
from sanderling.errors import BundleError
from sanderling.events.pending_decision import PendingDecision
from sanderling.outbox.write_queue import MAX_QUEUED
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.outboxes import open_outbox, sync, waiting


def pending(make, build=None) -> PendingDecision:
    """Return a decision that is still to be built, by default one of the factory's."""
    event = make.decision()
    return PendingDecision(
        event.id, event.install, event.user, event.slate, build or (lambda: event)
    )


def test_a_pending_decision_is_stored_as_its_event(tmp_path):
    """What is built while it is written reads like what was built before, in the same order."""
    outbox, make = open_outbox(tmp_path)
    late, early = pending(make), make.decision()
    outbox.put([late])
    outbox.put_durable([early])
    assert [event.id for event in waiting(outbox)] == [late.id, early.id]
    assert [event.seq for event in waiting(outbox)] == [1, 2]
    outbox.close()


def test_an_event_that_cannot_be_built_is_a_declared_loss(tmp_path):
    """A catalog that is damaged meanwhile costs this one event, and the outbox goes on."""
    outbox, make = open_outbox(tmp_path)

    def damaged():
        raise BundleError("catalog.jsonl: row 3: damaged")

    outbox.put([pending(make, damaged)])
    outbox.put_durable([make.observation()])
    sync(outbox)
    assert outbox.counters().lost == {"unencodable": 1}
    loss = next(event for event in waiting(outbox) if hasattr(event, "reason"))
    assert (loss.reason, loss.decisions) == ("unencodable", 1)
    outbox.close()


def test_dropped_pending_decisions_count_as_decisions_and_are_never_built(tmp_path):
    """What the queue has no room for, and what a forgotten user leaves there, is only counted."""
    outbox, make = open_outbox(tmp_path, threaded=False)

    def never():
        raise AssertionError("built though it was dropped")

    outbox.put([pending(make, never)])
    outbox.forget([make.decision().user], [])
    outbox.put([make.observation() for _ in range(MAX_QUEUED)])
    outbox.put([pending(make, never)])
    assert outbox.counters().lost == {"forgotten": 1, "queue_full": 1}
    outbox.close()


def test_a_slate_and_its_event_say_the_same(tmp_path):
    """The event is queued by `recommend` and built by `step`, where there is no thread."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state", background=False) as engine:
        slate = engine.recommend("anna", 4, exclude=["item-1"])
        assert engine.counters()["outbox"].queued == 1
        engine.step()
        event = next(event for event in stored(engine) if event.id == slate.decision)
    assert [slot.item for slot in event.slate] == [item.id for item in slate]
    assert [slot.conditional for slot in event.slate] == [item.propensity for item in slate]
