"""One event of an odd or hostile device: it is dropped and counted, and all others are learned from as if alone."""

from __future__ import annotations

import base64
import struct

import msgspec
import numpy as np
import pytest

from sanderling.events import schema as wire
from sanderling.events.schema import Slot
from sanderling.events.state_checksum import NO_EVENTS
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.merge_examples import joined
from sanderling_trainer.event_log.reader import EventLog
from tests.support.fakes import EventFactory

pytestmark = pytest.mark.lab

IDS, KINDS, TEXT = [f"item-{row}" for row in range(200)], ["view", "click"], 3
SHOWN = [Slot("item-0", 0, False, 0.9, 0.9), Slot("item-1", 1, False, 0.9, 0.9)]


def vector(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def wide(slots: int) -> list[Slot]:
    return [Slot(item, rank, False, 0.9, 0.9) for rank, item in enumerate(IDS[:slots])]


def story(*judged: tuple[int, str, float], **fields) -> list[wire.Event]:
    """A stranger's decision, and outcomes by slot, item and value."""
    make = EventFactory()
    base = {
        "seq": 1,
        "slate": SHOWN,
        "state_checksum": NO_EVENTS,
        "state_events": 0,
        "context": vector(0.6, 0.8, 0.0),
    }
    decision = make.decision(**(base | fields))
    given = judged or [(0, decision.slate[0].item, 1.0)]
    outcomes = [
        msgspec.structs.replace(
            make.outcome(decision, value=value, seq=2 + at, updates_state=False),
            slot=slot,
            item=item,
        )
        for at, (slot, item, value) in enumerate(given)
    ]
    return [decision, *outcomes]


def read(*stories: list[wire.Event]):
    """Read each story as that of a user of its own."""
    log = EventLog(events={("a" * 32, f"{at:032x}"): events for at, events in enumerate(stories)})
    return examples_of(log, IDS, KINDS, TEXT)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"context": "abc"}, "unsound context"),
        ({"context": "é"}, "unsound context"),
        ({"context": vector(0.0, float("nan"), 0.0)}, "unsound context"),
        ({"context": vector(float("inf"), 0.0, 0.0)}, "unsound context"),
        ({"context": vector(1e30, 0.0, 0.0)}, "a context that no encoder makes"),
        ({"slate": SHOWN[:1] * 2}, "unsound slate"),
        ({"pool": 1}, "unsound slate"),
        ({"pool": 2 * 10**8, "eligible": 2**53}, "unsound pool"),
        ({"slate": wide(129), "pool": 200}, "more than 128 slots, which have no marginals"),
    ],
)
def test_what_no_engine_makes_is_dropped_and_counted(fields, reason):
    """A decision with a bad context, slate or pool is counted by its reason; the others are the same as without it."""
    found, alone = read(story(), story(**fields)), read(story())
    assert dict(found.dropped) == {reason: 1}
    for name, column in vars(alone.decisions).items():
        np.testing.assert_array_equal(getattr(found.decisions, name), column, err_msg=name)
    np.testing.assert_array_equal(found.contexts, alone.contexts)


@pytest.mark.parametrize(
    "judged",
    [
        [(0, "item-1", 1.0)],  # shown elsewhere on the slate
        [(0, "item-7", 1.0)],  # not shown
        [(2, "item-0", 1.0)],  # no such slot
        [(2**53, "item-0", 1.0)],
    ],
)
def test_an_outcome_of_what_its_slot_did_not_show_is_none(judged):
    """It gives no slot a reward, neither that with its number nor that with its item, and its decision is counted."""
    found = read(story(), story(*judged))
    assert dict(found.dropped) == {"no judged slot": 1}
    assert len(found.decisions) == 1


def test_a_false_outcome_does_not_stand_for_a_true_one():
    """Of a slot's outcomes the last counts, of those that name its item: one that names another changes nothing."""
    found = read(
        story((0, "item-0", -1.0), (1, "item-1", -1.0), (0, "item-0", 1.0), (1, "item-0", 1.0))
    )
    assert found.decisions.reward.tolist() == [[1.0, -1.0]]
    assert found.decisions.judged.all()
    assert not found.dropped


def test_a_decision_judged_in_unknown_items_alone_is_counted():
    """Where nothing that was judged is in the lab's catalogue, there is nothing to learn."""
    found = read(story(slate=[Slot("sku-77", 0, False, 0.9, 0.9)]))
    assert dict(found.dropped) == {"no judged slot": 1}
    assert len(found.decisions) == 0


def in_parts(stories: list[list[wire.Event]], most: int):
    """Read so many stories at a time, and join what was found."""
    return joined(read(*stories[at : at + most]) for at in range(0, len(stories), most))


@pytest.mark.parametrize("most", [300, 1100, 1201])
def test_one_long_slate_does_not_widen_those_of_a_fleet(most):
    """Among many decisions the slates longer than 99 in 100 are left out, read at once or in parts, and counted."""
    stories = [story() for _ in range(1200)] + [story(slate=wide(128), pool=200)]
    found = in_parts(stories, most)
    assert dict(found.dropped) == {"a slate longer than those of 99 in 100 decisions": 1}
    assert (len(found.decisions), found.decisions.items.shape[1]) == (1200, 2)
    assert sum(column.nbytes for column in vars(found.decisions).values()) < 250 * 1200


def test_what_is_unusual_does_not_depend_on_the_parts():
    """Slates of three lengths, read at once or in parts, are left out by how many there are in all, and once."""
    stories = [
        story(slate=wide(2 + (at % 80 == 0) + (at % 160 == 0)), pool=200) for at in range(1200)
    ]
    whole = in_parts(stories, 1200)
    assert dict(whole.dropped) == {"a slate longer than those of 99 in 100 decisions": 8}
    assert (len(whole.decisions), whole.decisions.items.shape[1]) == (1192, 3)
    for most in (7, 400, 1199):
        found = in_parts(stories, most)
        for name, column in vars(whole.decisions).items():
            np.testing.assert_array_equal(getattr(found.decisions, name), column, err_msg=name)
        assert found.dropped == whole.dropped


def test_among_few_decisions_none_is_unusual():
    """A small log keeps all slates up to 128 slots, and tells how many slots each has."""
    found = joined([read(story(), story()), read(story(slate=wide(128), pool=200))])
    assert found.decisions.slots.tolist() == [2, 2, 128]
    assert found.decisions.items.shape == (3, 128)
    assert not found.dropped
