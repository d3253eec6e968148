"""Changed attributes: in effect at the next call, durable, and against a plain dict of records."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError
from sanderling.ranking import attribute_changes
from sanderling.ranking.attribute_changes import FILE
from sanderling.ranking.catalog_overlay import addition
from sanderling.releases.active_bundle import ActiveBundle
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive_rules import naive_match
from tests.support.shops import DAYS, GENRES, ITEMS, TIMES, attributes_of, write_shop

CREATED_S = 1_700_000_000


@pytest.fixture(scope="module", params=[False, True], ids=["catalog", "columns"])
def shop(tmp_path_factory, request):
    """A bundle of 300 items with attributes of every type."""
    return write_shop(tmp_path_factory.mktemp("shop") / "bundle", with_columns=request.param)


def opened(shop, state):
    return Engine.open(shop, state, clock=FakeClock(), entropy=FakeEntropy(), background=False)


changed_values = st.fixed_dictionaries(
    {},
    optional={
        "stock": st.none() | st.integers(0, 4),
        "genre": st.none() | st.sampled_from(GENRES),
        "tags": st.none() | st.lists(st.sampled_from(GENRES), max_size=2),
        "sale": st.none() | st.booleans(),
        "released": st.none() | st.sampled_from(DAYS),
        "weight": st.none() | st.integers(0, 9),
    },
)
# Few of the 300, so that changes, additions and removals meet.
ids = st.sampled_from(["item-1", "item-2", "item-3", "item-7", "sku-1", "sku-2"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.dictionaries(ids, changed_values, max_size=4)),
        st.tuples(st.just("add"), st.tuples(ids, changed_values)),
        st.tuples(st.just("remove"), ids),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("load"), st.sampled_from(["stock", "tags", "released", "sale"])),
    ),
    min_size=1,
    max_size=10,
)
WHERES = [
    {"stock": {"gt": 1}},
    {"genre": "jazz", "sale": {"exists": True}},
    {"tags": {"any": ["folk", "crime"]}},
    {"not": {"released": {"lt": "2025-01-01T00:00:00Z"}}},
    {"or": [{"weight": {"ge": 5}}, {"sale": True}]},
]


def without_none(record):
    return {name: value for name, value in record.items() if value is not None}


@settings(deadline=None, max_examples=20)
@given(steps)
def test_any_sequence_of_changes_equals_a_dict_of_records(shop, tmp_path_factory, steps):
    """Whatever is changed, added, removed and opened again: rules and slates see the records that
    a plain dict would hold, of which a removed item is shown no more."""
    state = tmp_path_factory.mktemp("state")
    records = {f"item-{row}": attributes_of(row) for row in range(ITEMS)}
    engine = opened(shop, state)
    engine.set_attributes({"item-0": {"weight": 3}})
    records["item-0"]["weight"] = 3
    for step, value in steps:
        if step == "set":
            engine.set_attributes(value)
            for item in value.keys() & records.keys():
                records[item] = without_none({**records[item], **value[item]})
        elif step == "add":
            item, attributes = value
            engine.upsert_items([{"id": item, "text": "coffee", **attributes}])
            records[item] = without_none(attributes)
        elif step == "remove":
            engine.remove_items([value])
            records.pop(value, None)
        elif step == "load":
            engine.warm_up([value])
        else:
            engine.close()
            engine = opened(shop, state)

    for where in WHERES:
        expected = {item for item in records if naive_match(where, records[item], TIMES)}
        slate = engine.recommend("anna", ITEMS + 5, where=where, greedy=True)
        assert {item.id for item in slate} == expected
        for item in slate:
            shown = {name: item.attributes.get(name) for name in attributes_of(0) | {"weight": 1}}
            assert without_none(shown) == {
                name: value for name, value in records[item.id].items() if name in shown
            }
        assert engine.explain(slate.decision).is_identical if len(slate) else True
    engine.close()


def test_nothing_is_encoded_and_no_vector_changes(shop, tmp_path, monkeypatch):
    """A change works where the encoder fails, and leaves rows and scores as they were."""
    with opened(shop, tmp_path / "state") as engine:
        engine.upsert_items([{"id": "sku-1", "text": "coffee", "stock": 1}])
        before = engine.recommend("anna", 300, greedy=True)
        monkeypatch.setattr(
            "sanderling.ranking.text_encoder.TextEncoder.encode",
            lambda *_: pytest.fail("encoded"),
        )
        engine.set_attributes({"item-4": {"stock": 77}, "sku-1": {"stock": 77}, "gone": {"x": 1}})
        after = engine.recommend("anna", 300, greedy=True)
        assert [(item.id, item.score) for item in before] == [(i.id, i.score) for i in after]
        found = engine.recommend("anna", 5, where={"stock": 77})
        assert {item.id for item in found} == {"item-4", "sku-1"}
        assert all(item.attributes["stock"] == 77 for item in found)


def test_caps_count_changed_values(shop, tmp_path):
    """A cap holds for what the app changed: the old value counts no more."""
    with opened(shop, tmp_path / "state") as engine:
        best = [item.id for item in engine.recommend("anna", 40, greedy=True)]
        engine.set_attributes({item: {"author": "one"} for item in best[:20]})
        for _ in range(10):
            slate = engine.recommend("anna", 12, at_most={"author": 2})
            assert Counter(item.attributes.get("author") for item in slate)["one"] <= 2
            assert len(slate) == 12
        engine.set_attributes({item: {"author": f"by {item}"} for item in best[:20]})
        slate = engine.recommend("anna", 12, at_most={"author": 2}, greedy=True)
        assert [item.id for item in slate] == best[:12]


@pytest.fixture
def active(tmp_path):
    """An active bundle of ten items with prices, beside a newer one of twelve."""
    write_bundle(tmp_path / "old", items=10, created=CREATED_S)
    write_bundle(tmp_path / "new", release=2, items=12, created=CREATED_S + 100)
    (tmp_path / "state").mkdir()
    return ActiveBundle(Bundle.open(tmp_path / "old"), tmp_path / "state", owns_folder=True)


def reopened(folder, name):
    """Return what is active when a process starts with the bundle of this name."""
    return ActiveBundle(Bundle.open(folder / name), folder / "state", owns_folder=True)


def attributes_in(active, item):
    scorer = active.scorer
    return scorer.item(scorer.find(item)).attributes


def test_a_change_gives_way_to_a_later_bundle_that_has_the_attribute(active, tmp_path):
    """A later bundle's price wins, while the stock, which no bundle has, stays; the older bundle
    has both again after a roll-back. Later changes win over either."""
    active.change_attributes({"item-3": {"price": 1, "stock": 5}, "item-11": {"stock": 6}}, 0)
    newer = reopened(tmp_path, "new")
    assert attributes_in(newer, "item-3") == {"price": 13, "stock": 5}
    assert attributes_in(newer, "item-11") == {"price": 21, "stock": 6}
    assert attributes_in(reopened(tmp_path, "old"), "item-3") == {"price": 1, "stock": 5}
    newer.change_attributes({"item-3": {"price": 2}}, 0)
    assert attributes_in(reopened(tmp_path, "new"), "item-3") == {"price": 2, "stock": 5}
    assert attributes_in(reopened(tmp_path, "old"), "item-3") == {"price": 2, "stock": 5}


@pytest.mark.parametrize("wall_s", [-(10**9), 0, CREATED_S + 50, 10**12])
def test_order_counts_not_the_clock(active, tmp_path, wall_s):
    """Under any clock the last call wins, be it a change or an addition."""
    wall_ms = 1000 * wall_s
    active.change_attributes({"item-3": {"price": 1}, "sku": {"stock": 1}}, 10**15)
    active.update_overlay([addition({"id": "sku", "text": "coffee"}, wall_ms)])
    active.update_overlay([addition({"id": "item-3", "text": "mine"}, wall_ms)])
    assert "stock" not in attributes_in(reopened(tmp_path, "old"), "sku")
    active.change_attributes({"item-3": {"price": 2}}, wall_ms)
    active.change_attributes({"item-3": {"price": 3}}, wall_ms - 1)
    for now in (active, reopened(tmp_path, "old")):
        assert attributes_in(now, "item-3")["price"] == 3
        assert "stock" not in attributes_in(now, "sku")


def test_a_call_that_a_crash_cut_off_counts_as_a_whole_or_not_at_all(active, tmp_path):
    """Cut at any byte, the file has the calls before, and takes the next one."""
    active.change_attributes({"item-1": {"stock": 1}}, 0)
    path = tmp_path / "state" / FILE
    first = path.read_bytes()
    active.change_attributes({"item-1": {"stock": 2}, "item-2": {"stock": 2}}, 0)
    data = path.read_bytes()
    for cut in range(len(first), len(data) + 1):
        path.write_bytes(data[:cut])
        now = reopened(tmp_path, "old")
        found = [attributes_in(now, item).get("stock") for item in ("item-1", "item-2")]
        assert found in ([1, None], [2, 2])
        now.change_attributes({"item-5": {"stock": 3}}, 0)
        assert attributes_in(reopened(tmp_path, "old"), "item-5")["stock"] == 3


def test_a_file_that_grows_is_compacted(active, tmp_path, monkeypatch):
    """Only the last value of each attribute is kept, and what is in force stays the same."""
    monkeypatch.setattr(attribute_changes, "SMALL_BYTES", 2000)
    for call in range(200):
        active.change_attributes({f"item-{call % 10}": {"stock": call, "price": call}}, call)
    assert (tmp_path / "state" / FILE).stat().st_size < 5000
    now = reopened(tmp_path, "old")
    for row in range(10):
        assert attributes_in(now, f"item-{row}") == {"stock": 190 + row, "price": 190 + row}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ([("item-1", {"stock": 0})], TypeError, "changes: expected a mapping such as"),
        ({"item-1": 5}, TypeError, "changes: item-1: expected attributes by name, found 5"),
        ({"item-1": {3: 5}}, TypeError, "changes: item-1: expected attributes by name"),
        ({7: {"stock": 0}}, ValueError, "changes: expected ids of 1 to 512 characters, found 7"),
        ({"": {"stock": 0}}, ValueError, "changes: expected ids of 1 to"),
        ({"item-1": {"title": "x"}}, ValueError, "found title: use `upsert_items`"),
        ({"item-1": {"text": "x"}}, ValueError, "found text: use `upsert_items`"),
        ({"item-1": {"stock": object()}}, ValueError, "expected values that JSON can hold"),
        (
            {"item-1": {"stock": "many"}},
            TypeError,
            "item-1: stock: expected a number, found 'many'",
        ),
        ({"item-1": {"sale": 1}}, TypeError, "item-1: sale: expected true or false, found 1"),
        ({"item-1": {"genre": 1}}, TypeError, "item-1: genre: expected texts, found 1"),
        ({"item-1": {"released": "soon"}}, TypeError, "released: expected a time"),
    ],
)
def test_wrong_changes_are_one_clear_error(shop, tmp_path, changes, error, message):
    """Each names the item and what would be right; nothing is changed, right ones included."""
    with opened(shop, tmp_path / "state") as engine:
        before = scorer_of(engine)
        changes = {"item-0": {"stock": 4}, **changes} if isinstance(changes, dict) else changes
        with pytest.raises(error) as caught:
            engine.set_attributes(changes)
        assert message in str(caught.value)
        assert scorer_of(engine) is before
        assert not (tmp_path / "state" / FILE).exists()


def test_an_engine_beside_the_owner_changes_nothing(shop, tmp_path):
    """Two engines on one folder: the second is told which one may."""
    with (
        opened(shop, tmp_path / "state") as engine,
        Engine.open(shop, tmp_path / "state") as beside,
    ):
        engine.set_attributes({"item-1": {"stock": 9}})
        with pytest.raises(StorageError, match="owns this state folder"):
            beside.set_attributes({"item-1": {"stock": 8}})
    with opened(shop, tmp_path / "state") as engine:
        assert [item.id for item in engine.recommend("anna", where={"stock": 9})] == ["item-1"]


def test_a_change_that_cannot_be_stored_is_an_error(shop, tmp_path):
    """Without its folder nothing is changed, and the error says what to do."""
    with opened(shop, tmp_path / "state") as engine:
        shutil.rmtree(tmp_path / "state")
        with pytest.raises(StorageError, match="open the engine again"):
            engine.set_attributes({"item-1": {"stock": 9}})
        assert len(engine.recommend("anna", where={"stock": 9})) == 0


def test_without_a_folder_changes_live_as_long_as_the_engine(shop):
    """An engine without `state` takes changes, in memory alone."""
    with Engine.open(shop) as engine:
        engine.set_attributes({"item-1": {"stock": 9}})
        assert [item.id for item in engine.recommend("anna", where={"stock": 9})] == ["item-1"]
