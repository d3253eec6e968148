"""Rules that are none, or that fit no catalog: one clear error, and nothing is decided."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.ranking import rules
from tests.support.bundles import trying, write_bundle
from tests.support.engines import wait_for_confirmation
from tests.support.shops import write_shop


@pytest.fixture(scope="module", params=[False, True], ids=["catalog", "columns"])
def shop(tmp_path_factory, request):
    """A bundle of 300 items with attributes of every type."""
    return write_shop(tmp_path_factory.mktemp("shop") / "bundle", with_columns=request.param)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("price < 50", TypeError, "where: expected a mapping"),
        ({3: 4}, TypeError, "where: expected what JSON can hold"),
        ({"price": object()}, TypeError, "where: expected what JSON can hold"),
        ({"prise": 3}, ValueError, "where: prise: expected an attribute that an item has"),
        ({"not": {"prise": 3}}, ValueError, "near: 'price'"),
        ({"id": "item-3"}, ValueError, "pass ids as `among` or `exclude`"),
        ({"price": {"below": 3}}, ValueError, "where: price: expected an operator, one of eq, lt"),
        ({"price": {}}, ValueError, "where: price: expected one of eq"),
        ({"price": [1, 2]}, ValueError, "use `any` or `all` for a list"),
        ({"genre": {"eq": {"a": 1}}}, ValueError, "where: genre: eq: expected one value, found"),
        ({"price": None}, ValueError, "use {'exists': false}"),
        ({"price": float("nan")}, ValueError, "use {'exists': false}"),
        ({"price": "3"}, TypeError, "where: price: eq: expected a number, found '3'"),
        ({"price": True}, TypeError, "where: price: eq: expected a number, found True"),
        ({"sale": 1}, TypeError, "where: sale: eq: expected true or false, found 1"),
        ({"sale": {"lt": 1}}, TypeError, "where: sale: lt: expected numbers or times"),
        ({"genre": {"lt": 3}}, TypeError, "where: genre: lt: expected an attribute of numbers"),
        ({"genre": 3}, TypeError, "where: genre: eq: expected texts, found 3"),
        ({"released": "soon"}, TypeError, "where: released: eq: expected a time"),
        ({"price": {"lt": [3]}}, ValueError, "where: price: lt: expected a number or a time"),
        ({"price": {"in": 3}}, ValueError, "where: price: in: expected a list"),
        ({"tags": {"all": []}}, ValueError, "expected 1 to 10000 values, found 0"),
        ({"price": {"in": [1] * 10_001}}, ValueError, "expected 0 to 10000 values, found 10001"),
        ({"price": {"exists": 1}}, ValueError, "exists: expected true or false"),
        ({"and": {"price": 3}}, ValueError, "where: and: expected a list of rules"),
        ({"not": [{"price": 3}]}, ValueError, "where: not: expected a mapping"),
        ({"or": [{"price": 3}] * 10_000}, ValueError, "expected at most 256 conditions"),
    ],
)
def test_wrong_rules_are_one_clear_error(shop, where, error, message):
    """Each names the argument, the place and what would be right; nothing is decided."""
    with Engine.open(shop) as engine:
        with pytest.raises(error) as caught:
            engine.recommend("anna", where=where)
        assert message in str(caught.value)
        assert len(engine.recommend("anna")) == 10


def test_deep_rules_are_an_error(shop):
    """Neither 17 levels nor 100,000 end in a crash."""
    for depth in (17, 100_000):
        where = {"price": 3}
        for _ in range(depth):
            where = {"not": where}
        with Engine.open(shop) as engine, pytest.raises((TypeError, ValueError), match="where: "):
            engine.recommend("anna", where=where)
        while where:  # freed level by level: Python's own recursion would end at 100,000
            where = where.get("not")


def test_values_of_numpy_and_tuples_are_what_json_makes_of_them(shop):
    """A rule is the same however its values are typed, and equal rules are one in the cache."""
    plain = rules.parse({"price": {"lt": 5}, "genre": {"in": ["jazz", "folk"]}})
    typed = rules.parse({"genre": {"in": np.array(["jazz", "folk"])}, "price": {"lt": np.int64(5)}})
    assert plain == typed
    assert plain is rules.parse({"genre": {"in": ("jazz", "folk")}, "price": {"lt": 5}})


def test_a_wrong_rule_does_not_roll_a_release_back(tmp_path):
    """The first call of a new release may have a typo: it stays on trial, then is confirmed."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        with pytest.raises(ValueError, match="prise"):
            engine.recommend("anna", where={"prise": 3})
        assert engine.release == 2
        assert len(engine.recommend("anna", where={"price": {"lt": 30}})) == 10
        assert engine.release == 2
        wait_for_confirmation()


def test_msgspec_of_a_slate_tells_eligible_and_shortage(shop):
    """What a client in another language sees of a slate says why it is short."""
    with Engine.open(shop) as engine:
        slate = engine.recommend("anna", 5, where={"genre": "nowhere"})
    shown = msgspec.json.decode(msgspec.json.encode(slate.to_dict()))
    assert (shown["eligible"], shown["items"]) == (0, [])
    assert shown["shortage"] == "0 of 5 items: 0 are eligible by `where`"
