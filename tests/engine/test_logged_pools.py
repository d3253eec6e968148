"""A decision names its pool where the app shaped it, and only there."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of, stored

ITEMS = 50
PLAN = Exploration("sequential", 0.5, pool=12, newcomers=0.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of 50 items with a pool of 12."""
    folder = tmp_path_factory.mktemp("pools") / "bundle"
    write_bundle(folder, exploration=PLAN)
    return folder


def decision_of(engine) -> Decision:
    """Return the last decision that an engine stored."""
    return [event for event in stored(engine) if isinstance(event, Decision)][-1]


def best(engine, count, excluded=()):
    """Return the ids of the best items of a new user without the excluded ones: the slow twin."""
    scorer = scorer_of(engine)
    vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
    rows = scorer.rank(vector, ITEMS).rows.tolist()
    ids = [scorer.item(row).id for row in rows]
    return [item for item in ids if item not in excluded][:count]


excludes = st.lists(st.integers(-3, ITEMS + 3), max_size=ITEMS)


@settings(deadline=None, max_examples=60)
@given(excluded=excludes, k=st.integers(1, 14))
def test_a_pool_is_logged_exactly_where_an_excluded_item_would_have_been_in_it(
    bundle, tmp_path_factory, excluded, k
):
    """By the slow twin that ranks with and without the excluded ids; the event goes over the wire
    and comes back equal, with each slot at its rank of the pool."""
    ids = [f"item-{row}" for row in excluded]
    with Engine.open(bundle, tmp_path_factory.mktemp("state")) as engine:
        if len(set(ids)) < ITEMS:
            engine.recommend("anna", k, exclude=ids)
        else:
            ids = []
            engine.recommend("anna", k)
        event = decision_of(engine)
        size = max(PLAN.pool, k)
        pool = best(engine, size, ids)
        is_shaped = pool != best(engine, size)
    assert event.pool_items == (pool if is_shaped else UNSET)
    assert semantic_fault(event) is None
    assert codec.decode(codec.encode(event)) == event
    assert [pool[slot.rank] for slot in event.slate] == [slot.item for slot in event.slate]


def test_every_pool_of_a_device_with_its_own_catalog_is_logged(bundle, tmp_path):
    """Items that the device added or removed are nothing that the lab knows of."""
    for name, change in {
        "added": lambda engine: engine.upsert_items([{"id": "sku-1", "text": "coffee"}]),
        "removed": lambda engine: engine.remove_items(["item-7"]),
    }.items():
        with Engine.open(bundle, tmp_path / name) as engine:
            engine.recommend("anna", 4)
            assert decision_of(engine).pool_items is UNSET
            change(engine)
            engine.recommend("anna", 4)
            assert len(decision_of(engine).pool_items) == PLAN.pool


def test_randomized_response_does_not_tell_what_the_app_excludes(bundle, tmp_path):
    """An app may exclude what was truly clicked: such a pool would tell it. Caps alone do not."""
    with Engine.open(bundle, tmp_path / "state", privacy=1.0) as engine:
        first = best(engine, 3)
        engine.recommend("anna", 4, exclude=first)
        assert decision_of(engine).pool_items is UNSET
        engine.recommend("anna", 4, exclude=first, at_most={"price": 1})
        assert decision_of(engine).pool_items is UNSET
        engine.recommend("anna", 4, at_most={"price": 1})
        assert decision_of(engine).pool_items is not UNSET


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text(min_size=1, max_size=512), min_size=2, max_size=40, unique=True),
    st.booleans(),
)
def test_pools_of_any_ids_come_back_equal(ids, is_swapped):
    """Any ids survive the wire; a slate that is not at its ranks of the pool is a fault."""
    shown = [(rank, ids[rank]) for rank in (0, len(ids) - 1)]
    if is_swapped:
        shown = [(shown[0][0], shown[1][1]), (shown[1][0], shown[0][1])]
    slots = [
        {"item": item, "rank": rank, "explored": False, "conditional": 0.5} for rank, item in shown
    ]
    event = msgspec.convert(
        {
            "type": "decision",
            "id": "1" * 32,
            "install": "2" * 32,
            "seq": 1,
            "user": "3" * 32,
            "clock": {"wall": 0, "mono": 0, "boot": "4" * 32},
            "release": 1,
            "scheme": "sequential",
            "epsilon": 0.1,
            "pool": len(ids),
            "eligible": 1000,
            "slate": slots,
            "state_checksum": "5" * 32,
            "state_events": 0,
            "pool_items": ids,
        },
        Decision,
    )
    assert codec.decode(codec.encode(event)) == event
    assert (semantic_fault(event) is None) is not is_swapped


def test_scores_of_rows_have_the_bits_of_the_ranking(bundle, tmp_path):
    """The scores that decide whether an excluded item ranked into the pool are the ranking's."""
    with Engine.open(bundle, tmp_path / "state") as engine:
        engine.upsert_items([{"id": f"sku-{i}", "text": f"coffee {i}"} for i in range(5)])
        scorer = scorer_of(engine)
    user = np.random.default_rng(1).standard_normal(16).astype(np.float32)
    ranking = scorer.rank(user, 60)
    assert scorer.scores(user, ranking.rows).tolist() == ranking.scores.tolist()
    assert scorer.scores(user, ranking.rows[:0]).tolist() == []
