"""Items that the app adds to the engine's catalog or removes from it."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid

import pytest

from sanderling import Engine
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock


def test_new_items_are_recommendable_at_once_and_after_a_restart(bundle, tmp_path):
    """An upserted item can be shown, replaced and excluded, and survives a restart."""
    everything = [f"item-{row}" for row in range(50)]
    with Engine.open(bundle, tmp_path) as engine:
        engine.upsert_items([{"id": "sku-77", "text": "red trail shoe"}])
        slate = engine.recommend("anna", exclude=everything)
        assert [(item.id, item.title) for item in slate] == [("sku-77", "red trail shoe")]
        engine.upsert_items(
            [{"id": "sku-77", "text": "blue jazz album"}, {"id": "item-0", "text": "coffee"}]
        )
        assert {item.title for item in engine.recommend("anna", exclude=everything[1:])} == {
            "blue jazz album",
            "coffee",
        }
    with Engine.open(bundle, tmp_path) as engine:
        slate = engine.recommend("anna", exclude=everything[1:])
        assert {item.id for item in slate} == {"sku-77", "item-0"}


def test_removed_items_are_never_shown_until_they_are_added_again(bundle, tmp_path):
    """Removal of bundle and added items holds under exploration and after a restart, until an
    upsert."""
    with Engine.open(bundle, tmp_path) as engine:
        engine.upsert_items([{"id": "sku-77", "text": "red trail shoe"}])
        engine.remove_items(["sku-77", "item-3", "item-4", "unknown"])
        assert len(engine.recommend("anna", k=100)) == 48
    with Engine.open(bundle, tmp_path) as engine:
        for _ in range(30):
            assert not {item.id for item in engine.recommend("anna", k=48)} & {
                "sku-77",
                "item-3",
                "item-4",
            }
        engine.upsert_items([{"id": "item-3", "text": "red trail shoe"}])
        assert "item-3" in {item.id for item in engine.recommend("anna", k=100)}
        assert len(engine.recommend("anna", k=100)) == 49


def test_a_removed_item_stays_removed_in_a_newer_bundle(tmp_path):
    """A newer bundle does not bring removed items back; it replaces the texts of upserted ones."""
    write_bundle(tmp_path / "old", created=1_700_000_000)
    write_bundle(tmp_path / "new", release=2, created=1_900_000_000)
    with Engine.open(tmp_path / "old", tmp_path / "state", clock=FakeClock()) as engine:
        engine.remove_items(["item-3"])
        engine.upsert_items([{"id": "item-4", "text": "the device's own words"}])
    with Engine.open(tmp_path / "new", tmp_path / "state", clock=FakeClock()) as engine:
        titles = {item.id: item.title for item in engine.recommend("anna", k=50)}
        assert "item-3" not in titles
        assert titles["item-4"] != "the device's own words"


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("", ValueError, "item: id: expected a string"),
        ("x" * 513, ValueError, "item: id: expected a string"),
        (3, TypeError, "ids: expected ids or items of a slate, found int 3"),
        (None, TypeError, "ids: expected ids or items of a slate, found NoneType"),
    ],
)
def test_removing_an_invalid_id_removes_nothing(engine, item, error, message):
    """A bad id raises an error, and nothing of the call is removed."""
    with pytest.raises(error, match=message):
        engine.remove_items(["item-0", item])
    assert engine.recommend("anna", k=50)[49]


@pytest.mark.parametrize("ids", ["12", b"12", 12, None, {"12": 1}])
def test_one_id_in_the_place_of_several_removes_nothing(engine, ids):
    """A lone text is not walked letter by letter: "12" removes neither "1" nor "2"."""
    engine.upsert_items([{"id": id, "text": f"thing {id}"} for id in ("1", "2", "12")])
    with pytest.raises(TypeError, match="ids: expected several, such as a list, found one"):
        engine.remove_items(ids)
    assert {"1", "2", "12"} < {item.id for item in engine.recommend("anna", k=53)}


def test_items_of_a_slate_can_be_removed(engine):
    """Items of a slate count as their ids."""
    first = engine.recommend("anna", k=3)
    engine.remove_items(first)
    assert not {item.id for item in first} & {item.id for item in engine.recommend("anna", k=50)}


@pytest.mark.parametrize("items", [{"id": "9", "text": "x"}, "id", [("id", "9")], 9])
def test_one_item_in_the_place_of_several_is_refused(engine, items):
    """A lone record, or something that is no record, is a TypeError."""
    with pytest.raises(TypeError, match="expected"):
        engine.upsert_items(items)
    assert "9" not in {item.id for item in engine.recommend("anna", k=51)}


CHANGED_BY_JSON = {
    "date": datetime.date(2024, 5, 1),
    "datetime": datetime.datetime(2024, 5, 1, 20, tzinfo=datetime.UTC),
    "Decimal": decimal.Decimal("9.99"),
    "UUID": uuid.UUID(int=7),
    "bytes": b"x",
    "NaN": math.nan,
    "tuple": ("a", "b"),
    "set": {"a"},
    "keys": {1: "one"},
    "large": 2**70,
}


@pytest.mark.parametrize("name", CHANGED_BY_JSON)
def test_attributes_are_the_same_before_and_after_a_restart(tmp_path, name):
    """A value that JSON changes is changed when it is added: caps hold alike in both runs."""
    write_bundle(tmp_path / "bundle")
    added = [
        {"id": f"new-{n}", "text": f"ticket {n}", "day": CHANGED_BY_JSON[name]} for n in range(6)
    ]

    def shown(engine):
        slate = engine.recommend("anna", k=60, at_most={"day": 1}, greedy=True)
        return [item.attributes for item in slate if item.id.startswith("new-")]

    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        engine.upsert_items(added)
        before = shown(engine)
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        assert shown(engine) == before
    assert len(before) == (6 if name in ("NaN", "keys") else 1)


@pytest.mark.parametrize(
    "item", [{"id": "a"}, {"text": "a"}, {"id": "", "text": "a"}, {"id": 3, "text": "a"}]
)
def test_one_bad_item_rejects_the_whole_call(engine, item):
    """A bad item raises ValueError that names the field, and nothing of the call is added."""
    with pytest.raises(ValueError, match=r"item: (id|text)"):
        engine.upsert_items([{"id": "good", "text": "good"}, item])
    assert "good" not in {item.id for item in engine.recommend("anna", k=51)}


@pytest.mark.parametrize("value", [10**5000, "half \ud800", object()], ids="abc")
def test_an_attribute_that_json_cannot_hold_is_named(engine, value):
    """What JSON cannot hold is a ValueError that names the field, and nothing is added."""
    with pytest.raises(ValueError, match="item: 'colour': expected what JSON can hold"):
        engine.upsert_items(
            [{"id": "new", "text": "red shoe"}, {"id": "other", "text": "shoe", "colour": value}]
        )
    assert "new" not in {item.id for item in engine.recommend("anna", k=51)}
