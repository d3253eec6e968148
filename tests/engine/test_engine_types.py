"""What an app passes: wrong types are `TypeError`s that name the argument, scalars of numpy are
numbers, slates are sequences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanderling import Engine, Slate
from sanderling.events.schema import Decision, Outcome
from tests.support.engines import stored
from tests.support.fakes import FakeTransport

WRONG_OPTIONS: dict[str, list[Any]] = {
    "state": [5, b"state"],
    "collector": [5, b"http://host"],
    "token": [5, b"secret"],
    "releases": [Path("releases")],
    "root": [5],
    "share_context": ["no", 1],
    "adapt": ["no", 1],
    "background": ["no", 0],
    "verify": ["no", 1],
    "privacy": ["1", True],
    "window_s": ["1", True],
    "pseudonym_days": ["1", True],
    "outbox_bytes": ["1", True, 2.0**20, None],
    "may_upload": [True],
    "entropy": [b"random"],
    "transport": ["http://host"],
    "child_command": ["python", [5]],
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_an_option_of_a_wrong_type_is_named(bundle, tmp_path, name):
    """Each option refuses other types with a `TypeError` that begins with its name."""
    for value in WRONG_OPTIONS[name]:
        options = {"state": tmp_path / "state", name: value}
        with pytest.raises(TypeError, match=f"^{name}: expected"):
            Engine.open(bundle, **options)


CALLS: dict[str, Callable[[Engine, Slate], object]] = {
    "user": lambda engine, slate: engine.recommend(5),
    "k": lambda engine, slate: engine.recommend("anna", 2.0),
    "k ": lambda engine, slate: engine.recommend("anna", np.bool_(True)),
    "context": lambda engine, slate: engine.recommend("anna", context=b"rain"),
    "exclude": lambda engine, slate: engine.recommend("anna", exclude="item-1"),
    "at_most": lambda engine, slate: engine.recommend("anna", at_most=["price"]),
    "at_most ": lambda engine, slate: engine.recommend("anna", at_most={"price": 1.0}),
    "greedy": lambda engine, slate: engine.recommend("anna", greedy="no"),
    "item": lambda engine, slate: engine.observe("anna", 5),
    "kind": lambda engine, slate: engine.observe("anna", "item-1", None),
    "slate": lambda engine, slate: engine.reward([*slate], slate[0], 1.0),
    "slate ": lambda engine, slate: engine.seen([*slate]),
    "item ": lambda engine, slate: engine.reward(slate, 5, 1.0),
    "items": lambda engine, slate: engine.seen(slate, 5),
    "values": lambda engine, slate: engine.reward_all(slate, [(slate[0], 1.0)]),
    "value": lambda engine, slate: engine.reward(slate, slate[0], np.bool_(True)),
    "observe": lambda engine, slate: engine.reward(slate, slate[0], 1.0, observe="no"),
    "kind ": lambda engine, slate: engine.reward(slate, slate[0], 1.0, 5),
    "timeout_s": lambda engine, slate: engine.flush("1"),
    "timeout_s ": lambda engine, slate: engine.update("1"),
    "timeout_s  ": lambda engine, slate: engine.close("1"),
    "items ": lambda engine, slate: engine.upsert_items(["item-1"]),
    "ids": lambda engine, slate: engine.remove_items([5]),
    "decision": lambda engine, slate: engine.explain(slate),
    "user ": lambda engine, slate: engine.forget_user(5),
    "attributes": lambda engine, slate: engine.warm_up("price"),
    "attributes ": lambda engine, slate: engine.warm_up([5]),
    "id": lambda engine, slate: engine.receipt(5),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_a_wrong_type_is_named(bundle, tmp_path, name):
    """Each argument of each method refuses other types with a `TypeError` that begins with its
    name."""
    with Engine.open(bundle, tmp_path, window_s=60.0) as engine:
        slate = engine.recommend("anna")
        with pytest.raises(TypeError, match=f"^{name.strip()}: expected"):
            CALLS[name](engine, slate)


def test_scalars_of_numpy_are_numbers(bundle, tmp_path):
    """Numbers that come out of arrays work wherever a number is expected."""
    options = {
        "outbox_bytes": np.int64(2**20),
        "window_s": np.float32(60.0),
        "pseudonym_days": np.int16(30),
        "transport": FakeTransport(),
        "background": False,
    }
    with Engine.open(bundle, tmp_path, **options) as engine:
        slate = engine.recommend("anna", np.int64(5), at_most={"price": np.int32(1)})
        assert len(slate) == 5
        timeout_s = np.float32(5.0)
        assert engine.reward(slate, slate[np.int64(0)], np.float32(0.5), timeout_s=timeout_s)
        events = stored(engine)
        assert [event.value for event in events if isinstance(event, Outcome)] == [0.5]
        assert [event.caps for event in events if isinstance(event, Decision)] == [{"price": 1}]


def test_a_collector_needs_a_state_folder(bundle):
    """Without a state folder nothing could be sent, so a collector or transport is an error."""
    for options in ({"collector": "http://host/v1"}, {"transport": FakeTransport()}):
        with pytest.raises(ValueError, match="expected `state` with it"):
            Engine.open(bundle, **options)


def test_a_slate_is_a_sequence_and_a_slice_is_a_slate(bundle, tmp_path):
    """A slate has all that sequences have; a part of it can be seen and rewarded as the whole."""
    with Engine.open(bundle, tmp_path, window_s=60.0) as engine:
        slate = engine.recommend("anna", k=5)
        assert isinstance(slate, Sequence)
        assert slate[1] in slate
        assert slate.index(slate[2]) == 2
        assert [*reversed(slate)] == [*slate][::-1]

        part = slate[1:3]
        assert isinstance(part, Slate)
        assert (part.decision, part.user, len(part)) == (slate.decision, "anna", 2)
        assert [item.slot for item in part] == [1, 2]
        engine.seen(part)
        assert engine.reward(part, part[0], 1.0)
        with pytest.raises(ValueError, match="one of the slate's 2 items"):
            engine.reward(part, slate[0], 1.0)
        [outcome] = [event for event in stored(engine) if isinstance(event, Outcome)]
        assert (outcome.slot, outcome.item) == (1, slate[1].id)


def test_a_slate_becomes_json(engine):
    """`to_dict` has every field of the slate and of its items, as values that JSON can hold."""
    slate = engine.recommend("anna", k=2)
    loaded = json.loads(json.dumps(slate.to_dict()))
    fields = {"decision", "user", "pseudonym", "release", "eligible", "shortage", "arm", "items"}
    assert loaded.keys() == fields
    assert loaded["items"][1] == {
        name: getattr(slate[1], name) for name in slate[1].__struct_fields__
    }
