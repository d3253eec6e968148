"""Typed attributes as features: the same as one value at a time, and new items placed by them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sanderling import Engine
from sanderling.bundle.features import CONTEXT, ITEM, Feature, FeatureSchema, FeatureTensors
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking.added_items import item_text, vectors_of_new
from sanderling.ranking.features import FeatureMap
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import reseal, write_bundle
from tests.support.naive_features import naive_features

SCHEMA = FeatureSchema(
    (
        Feature("price", "number", centre=20.0, scale=8.0, is_heavy_tailed=True),
        Feature("year", "number", centre=1990.0, scale=12.0),
        Feature("new", "boolean", centre=0.25, scale=0.4),
        Feature("released", "time", centre=1.6e9, scale=1e8),
        Feature("image", "vector", scale=0.9, width=3),
        Feature("shelf", "category", values=("sea", "crime", 7, True, 1)),
        Feature("genres", "categories", values=("jazz", "folk", "rock")),
    ),
    ("shelf", "genres"),
)
MEAN = np.array([0.1, -0.2, 0.05], np.float32)

numbers = st.integers(-(10**400), 10**400) | st.floats() | st.integers(0, 3000)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=3)
known = st.sampled_from(["sea", "crime", 7, True, 1, 1.0, "jazz", "folk", "rock", "unseen"])
records = st.fixed_dictionaries(
    {},
    optional={
        "price": scalars,
        "year": scalars,
        "new": scalars,
        "released": st.none()
        | st.sampled_from(["2020-05-01", "1999-01-01T12:00:00+02:00", 5, 1e9]),
        "image": st.none() | st.lists(st.integers(-5, 5), max_size=4),
        "shelf": scalars | known,
        "genres": st.none() | st.lists(known | scalars, max_size=6) | known,
        "unknown": scalars,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(records, min_size=1, max_size=5))
def test_features_are_those_of_one_value_at_a_time(given_records):
    """Whatever a record holds, its features are those of the slow twin; what is missing, unseen or
    of another type is 0."""
    features = FeatureMap(SCHEMA, MEAN).features_of(given_records)
    expected = [naive_features(SCHEMA, MEAN.tolist(), record) for record in given_records]
    assert np.allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_what_is_missing_everywhere_adds_nothing():
    """An item without attributes, and one with unknown ones, has the vector of its text alone."""
    features = FeatureMap(SCHEMA, MEAN).features({"genres": [None, ["unseen"], []]}, 3)
    assert not features.matrix(SCHEMA.columns).any()


def test_a_wrong_number_does_not_decide_alone():
    """Features are bounded, whatever a number or a vector holds."""
    columns = {
        "price": [1e308, -1e308, 10**400],
        "year": [1e308, float("inf"), float("nan")],
        "image": [[1e38, 1e38, 0.0], [1e-30, 0.0, 0.0], [float("nan")] * 3],
    }
    dense = FeatureMap(SCHEMA, MEAN).features(columns, 3).dense
    assert np.isfinite(dense).all()
    assert np.abs(dense).max() <= 5.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A bundle whose policy has features of SCHEMA."""
    folder = tmp_path_factory.mktemp("features") / "bundle"
    write_bundle(folder, attributes=attributes_of, with_columns=True)
    add_features(folder)
    return folder


def attributes_of(row):
    return {
        "price": row,
        "year": 1900 + row,
        "new": row % 2 == 0,
        "released": f"2020-01-{row % 28 + 1:02d}",
        "shelf": ["sea", "crime"][row % 2],
        "genres": [["jazz"], ["folk", "rock"]][row % 2],
    }


def add_features(folder, **changes):
    """Add the tensors of features to a bundle's policy, changed as said, and seal it again."""
    project = np.random.default_rng(1).standard_normal((16, SCHEMA.columns)).astype(np.float32)
    tensors = load_file(folder / "policy.safetensors")
    tensors |= FeatureTensors(SCHEMA, project, MEAN).tensors(ITEM)
    for name, value in changes.items():
        tensors[f"item.{name}"] = value
    found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(found, folder / "policy.safetensors")
    reseal(folder)


NEW = {
    "id": "sku-1",
    "text": "blue jazz album",
    "genres": ["jazz", "rock"],
    "shelf": "sea",
    "price": 12.5,
    "image": [0.5, 1, -2],
    "colour": "a name that the release does not know",
}


def test_a_new_item_is_placed_by_its_text_and_attributes(shop):
    """Its vector is the projection of its text, read with the words that the lab's model reads,
    plus that of its features."""
    scorer = Scorer(Bundle.open(shop, verify=True))
    n = scorer.bundle.manifest.sizes.items
    placed = scorer.with_overlay([{**NEW, "title": NEW["text"]}]).vector(n)
    found = scorer.bundle.item_features
    features = naive_features(SCHEMA, MEAN.tolist(), NEW)
    expected = scorer.project("blue jazz album. shelf: sea. genres: jazz rock")
    expected = expected + found.project @ np.array(features, np.float32)
    assert np.abs(placed - expected).max() <= np.abs(expected).max() / 127 + 1e-5


def test_an_added_item_keeps_its_vector(shop, tmp_path):
    """What `set_attributes` changes of it counts for rules and moves no vector: not at once, not
    when other items are added, and not after a restart."""
    with Engine.open(shop, tmp_path) as engine:
        engine.upsert_items([NEW])
        vector = engine._active_bundle.scorer.vector(50)
        engine.set_attributes({"sku-1": {"price": 99.0, "shelf": "crime"}})
        for _ in range(2):
            scorer = engine._active_bundle.scorer
            assert np.array_equal(scorer.vector(50), vector)
            assert scorer.item(50).attributes["price"] == 99.0
            engine.upsert_items([{"id": "sku-2", "text": "tent"}])
    with Engine.open(shop, tmp_path) as engine:
        scorer = engine._active_bundle.scorer
        row = scorer.find("sku-1")
        assert np.array_equal(scorer.vector(row), vector)
        assert scorer.item(row).attributes["price"] == 99.0


def test_the_effect_of_a_word_of_an_added_item_counts_its_attributes(shop):
    """It is the score less that of the item with a text without the word and all else the same,
    whatever the app changed since: both are placed by the attributes, too."""
    with Engine.open(shop) as engine:
        engine.observe("anna", "item-3", "click")
        engine.upsert_items([NEW])
        engine.set_attributes({"sku-1": {"price": 99.0, "shelf": "crime"}})
        (item,) = engine.recommend("anna", 1, among=["sku-1"])
        (word,) = [word for word in item.why().words if word.word == "blue"]
        engine.upsert_items([{**NEW, "text": "jazz album"}])
        (other,) = engine.recommend("anna", 1, among=["sku-1"])
        assert word.effect == item.score - other.score


def test_vectors_of_new_items_have_the_same_bits_in_any_company(shop):
    """An item is placed alike alone and among others, with sums in the order of their terms."""
    bundle = Bundle.open(shop)
    scorer = Scorer(bundle)
    records = [NEW, {"id": "a", "text": "tent"}, {**NEW, "id": "b", "price": 3, "image": None}]
    vectors = vectors_of_new(bundle, scorer.encoder, records)
    for record, vector in zip(records, vectors, strict=True):
        text = item_text(record, bundle.item_features.schema)
        features = FeatureMap.of(bundle.item_features).features_of([record])[0]
        inputs = [*scorer.encoder.encode_item(text).tolist(), *features.tolist()]
        weights = np.hstack([bundle.policy["item.project"], bundle.item_features.project]).tolist()
        sums = [0.0] * len(weights)
        for i, row in enumerate(weights):
            for weight, value in zip(row, inputs, strict=True):
                sums[i] += weight * value
        assert np.float32(sums).tolist() == vector.tolist()


def test_vectors_of_added_items_are_not_shown(tmp_path, shop):
    """A slate has no vectors among an item's attributes, as those of the bundle have none."""
    folder = vector_shop(tmp_path)
    with Engine.open(folder, tmp_path / "state") as engine:
        engine.upsert_items([NEW])
        (item,) = engine.recommend("anna", 1, among=["sku-1"])
        assert "image" not in item.attributes
        assert item.attributes["price"] == 12.5


def vector_shop(tmp_path):
    """Return a bundle whose columns declare the vector too."""
    from sanderling.ranking.column_file import write_columns
    from tests.support.bundles import record

    folder = tmp_path / "vectors"
    write_bundle(folder, attributes=attributes_of, with_columns=True)
    types = {"image": "vector", "genres": "categories"}
    write_columns(folder, [record(row) | attributes_of(row) for row in range(50)], types)
    add_features(folder)
    return folder


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("price", "free", "a number, found 'free'"),
    ("price", True, "a number, found True"),
    ("new", 1, "true or false, found 1"),
    ("released", "soon", "a time, as ISO 8601 text or in seconds since 1970, found 'soon'"),
    ("genres", 7, "texts, found 7"),
    ("title", 7, "texts, found 7"),
    ("image", [1.0], "a list of 3 numbers, found"),
    ("image", "cat.png", "a list of 3 numbers, found 'cat.png'"),
    ("image", ["a", "b", "c"], "a list of 3 numbers, found"),
])  # fmt: skip
def test_a_value_of_another_type_is_one_error(tmp_path, name, value, expected):
    """It names the item, the attribute, what was expected and found; nothing is added."""
    folder = vector_shop(tmp_path)
    with Engine.open(folder, tmp_path / "state") as engine:
        with pytest.raises(TypeError, match=f"items: sku-1: {name}: expected {expected}"):
            engine.upsert_items([{**NEW, name: value}])
        assert engine._active_bundle.scorer.overlay.records == ()


def test_vectors_are_no_rules(tmp_path):
    """A rule on a vector, and a change of one, say so."""
    with Engine.open(vector_shop(tmp_path)) as engine:
        with pytest.raises(ValueError, match=r"where: image: .* found one of vectors"):
            engine.recommend("anna", where={"image": {"exists": True}})
        with pytest.raises(TypeError, match="changes: item-1: image: expected a list of 3 numbers"):
            engine.set_attributes({"item-1": {"image": 7}})


def test_contexts_have_no_vectors():
    """A bundle that declares one is a fault: no request could give its value."""
    feature = Feature("image", "vector", width=2)
    zeros = np.zeros((16, 2), np.float32), np.zeros(2, np.float32)
    tensors = FeatureTensors(FeatureSchema((feature,)), *zeros).tensors(CONTEXT)
    with pytest.raises(BundleError, match=r"context\.features: expected no vectors"):
        FeatureTensors.of(tensors, CONTEXT, 16)


def schema_bytes(content):
    return np.frombuffer(msgspec.json.encode(content), np.uint8)


WRONG = {
    "no json": {"features": np.frombuffer(b"{", np.uint8)},
    "unknown type": {"features": schema_bytes({"features": [{"name": "a", "type": "x"}]})},
    "a text": {"features": schema_bytes({"features": [{"name": "a", "type": "text"}]})},
    "equal names": {"features": schema_bytes({"features": [{"name": "a", "type": "number"}] * 2})},
    "no scale": {
        "features": schema_bytes({"features": [{"name": "a", "type": "number", "scale": 0.0}]})
    },
    "no values": {"features": schema_bytes({"features": [{"name": "a", "type": "category"}]})},
    "categories first": {
        "features": schema_bytes(
            {
                "features": [
                    {"name": "a", "type": "category", "values": ["x"]},
                    {"name": "b", "type": "number"},
                ]
            }
        )
    },
    "no projection": {"feature_project": None},
    "another width": {"feature_project": np.zeros((16, 2), np.float32)},
    "another mean": {"feature_mean": np.zeros(2, np.float32)},
    "another dtype": {"feature_mean": np.zeros(3)},
    "not finite": {"feature_mean": np.full(3, np.nan, np.float32)},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensors_are_a_fault(tmp_path, name):
    """Each is a `BundleError` when the bundle is verified."""
    folder = tmp_path / "bundle"
    write_bundle(folder)
    add_features(folder, **WRONG[name])
    with pytest.raises(BundleError, match="feature"):
        Bundle.open(folder, verify=True)
