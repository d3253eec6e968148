"""An event of a faulty or malicious device is dropped and counted, without effect on all others."""

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
from sanderling_trainer.event_log.merge_examples import merge_examples
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
    """A decision for a new user, and outcomes with these slots, items and values."""
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
    """Read each story as that of a different install."""
    log = EventLog(events={(f"{at:032x}", "a" * 32): events for at, events in enumerate(stories)})
    return examples_of(log, IDS, KINDS, TEXT)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"context": "abc"}, "invalid context"),
        ({"context": "é"}, "invalid context"),
        ({"context": vector(0.0, float("nan"), 0.0)}, "invalid context"),
        ({"context": vector(float("inf"), 0.0, 0.0)}, "invalid context"),
        ({"context": vector(1e30, 0.0, 0.0)}, "context vector too long"),
        ({"slate": SHOWN[:1] * 2}, "invalid slate"),
        ({"pool": 1}, "invalid slate"),
        ({"pool": 2 * 10**8, "eligible": 2**53}, "invalid pool"),
        ({"slate": wide(129), "pool": 200}, "more than 128 slots, which have no marginals"),
    ],
)
def test_impossible_decisions_are_dropped_and_counted(fields, reason):
    """A decision with an invalid context, slate or pool is counted by its reason; the others are
    unchanged.
    """
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
def test_an_outcome_of_an_item_that_its_slot_did_not_show_is_ignored(judged):
    """It rewards neither the slot that it names nor the slot of its item, and its decision is
    counted.
    """
    found = read(story(), story(*judged))
    assert dict(found.dropped) == {"no judged slot": 1}
    assert len(found.decisions) == 1


def test_an_invalid_outcome_does_not_replace_a_valid_one():
    """Of a slot's outcomes the last one that names its item counts; others change nothing."""
    found = read(
        story((0, "item-0", -1.0), (1, "item-1", -1.0), (0, "item-0", 1.0), (1, "item-0", 1.0))
    )
    assert found.decisions.reward.tolist() == [[1.0, -1.0]]
    assert found.decisions.judged.all()
    assert not found.dropped


def test_a_decision_with_outcomes_of_unknown_items_is_dropped():
    """A decision whose outcomes are all of items outside the catalog is dropped and counted."""
    found = read(story(slate=[Slot("sku-77", 0, False, 0.9, 0.9)]))
    assert dict(found.dropped) == {"no judged slot": 1}
    assert len(found.decisions) == 0


def in_partitions(stories: list[list[wire.Event]], size: int):
    """Read so many stories at a time, and merge the examples."""
    starts = range(0, len(stories), size)
    return merge_examples(read(*stories[start : start + size]) for start in starts)


@pytest.mark.parametrize("size", [300, 1100, 1201])
def test_one_long_slate_does_not_widen_all_columns(size):
    """Of many decisions the 1 % with the longest slates are dropped and counted, however the log is
    partitioned.
    """
    stories = [story() for _ in range(1200)] + [story(slate=wide(128), pool=200)]
    found = in_partitions(stories, size)
    assert dict(found.dropped) == {"a slate longer than those of 99 in 100 decisions": 1}
    assert (len(found.decisions), found.decisions.items.shape[1]) == (1200, 2)
    assert sum(column.nbytes for column in vars(found.decisions).values()) < 250 * 1200


def test_the_usual_length_does_not_depend_on_the_partitions():
    """Slates of three lengths are dropped by their number in the whole log, however it is
    partitioned.
    """
    stories = [
        story(slate=wide(2 + (at % 80 == 0) + (at % 160 == 0)), pool=200) for at in range(1200)
    ]
    whole = in_partitions(stories, 1200)
    assert dict(whole.dropped) == {"a slate longer than those of 99 in 100 decisions": 8}
    assert (len(whole.decisions), whole.decisions.items.shape[1]) == (1192, 3)
    for size in (7, 400, 1199):
        found = in_partitions(stories, size)
        for name, column in vars(whole.decisions).items():
            np.testing.assert_array_equal(getattr(found.decisions, name), column, err_msg=name)
        assert found.dropped == whole.dropped


def test_among_few_decisions_none_is_unusual():
    """A small log keeps all slates up to 128 slots, with the number of slots of each."""
    found = merge_examples([read(story(), story()), read(story(slate=wide(128), pool=200))])
    assert found.decisions.slots.tolist() == [2, 2, 128]
    assert found.decisions.items.shape == (3, 128)
    assert not found.dropped
