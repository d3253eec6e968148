"""Typed attributes in the item tower: from the catalog over training to a device's new item."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling_quantize import quantize
from sanderling_trainer import train
from sanderling_trainer.data.schema import Attribute
from sanderling_trainer.data.tables import read_catalog
from sanderling_trainer.policy import checkpoint, newcomers
from sanderling_trainer.policy.feature_schema import (
    MAX_VALUES,
    attribute_table,
    feature_columns,
    fit_features,
)
from sanderling_trainer.policy.living_catalog import change_between, with_catalog
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.sampled_softmax import item_vectors
from tests.support.naive_features import naive_features
from tests.support.worlds import THINGS, write_language_model

pytestmark = pytest.mark.lab

GENRES = ["rock", "jazz", "folk"]
ITEMS = 90
USERS = 90


def catalog_table(rng):
    """Return items whose texts say nothing of who likes them; genre, price and image do."""
    genre = np.arange(ITEMS) % 3
    return pa.table(
        {
            "item_id": [f"i{row}" for row in range(ITEMS)],
            "text": [f"{THINGS[row % 10]} number {row}" for row in range(ITEMS)],
            "genre": [GENRES[each] for each in genre],
            "tags": [["a", "b"] if row % 2 else ["a", "c", "d"] for row in range(ITEMS)],
            "price": np.exp(rng.normal(2.0, 1.5, ITEMS)).round(2),
            "new": [None if row % 5 == 0 else row % 2 == 0 for row in range(ITEMS)],
            "released": [f"20{row % 20 + 1:02d}-01-05" for row in range(ITEMS)],
            "image": [
                None if row % 7 == 0 else (rng.normal(size=12) + 3.0 * np.eye(12)[genre[row]])
                for row in range(ITEMS)
            ],
        }
    )


def log_table(rng):
    """Return what users liked: 12 items of one genre each; the last 6 items nobody."""
    rows = []
    for user in range(USERS):
        liked = rng.permutation(np.arange(user % 3, ITEMS - 6, 3))[:12]
        rows += [(f"u{user}", f"i{item}", 10**9 + 10**4 * user + 60 * at) for at, item in
                 enumerate(liked)]  # fmt: skip
    users, items, times = zip(*rows, strict=True)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("tower")
    model = write_language_model(folder / "model")
    rng = np.random.default_rng(0)
    done = train(
        log_table(rng),
        folder / "checkpoint",
        catalog_table(rng),
        schema={"items": {"image": "vector", "released": {"type": "time", "learn": False}}},
        language_model=str(model),
        train_anyway=True,
        dim=16,
        epochs=8,
        holdout=0.0,
        visit_hours=0.0,
        horizon_days=0.0,
        seed=0,
    )
    built = quantize(done.checkpoint, folder / "bundle", encoder="base")
    return done.checkpoint, built.folder


def test_a_device_places_a_new_item_as_the_lab_does(trained):
    """Texts, numbers, categories and vectors go through training, quantization and the gate; the
    bundle has them as columns, and a new item gets the vector that the lab gives it."""
    folder, bundle_folder = trained
    bundle = Bundle.open(bundle_folder, verify=True)
    assert bundle.columns.types["image"] == "vector"
    assert bundle.columns.types["genre"] == "category"
    names = {feature.name for feature in bundle.item_features.schema.features}
    assert names == {"price", "new", "image", "genre", "tags"}
    checks = {row["check"]: row for row in bundle.manifest.reports["gate"]}
    assert checks["cosine, new items with attributes"]["value"] > 0.999

    opened = checkpoint.load(folder)
    placed = opened.network.content().detach().numpy()
    with Engine.open(bundle_folder) as engine:
        scorer = engine._active_bundle.scorer
        rows = [0, 1, 5, 89]
        for row in rows:
            vectors = opened.catalog.vectors["image"][row]
            image = {} if np.isnan(vectors).any() else {"image": vectors.tolist()}
            record = opened.catalog.records[row] | image | {"id": f"again {row}"}
            text = f"{THINGS[row % 10]} number {row}"
            engine.upsert_items([{**record, "text": text, "title": text}])
        scorer = engine._active_bundle.scorer
        for row in rows:
            found = scorer.vector(scorer.find(f"again {row}"))
            cosine = found @ placed[row] / np.linalg.norm(found) / np.linalg.norm(placed[row])
            assert cosine > 0.999


def test_new_items_are_ranked_by_attributes_that_texts_do_not_have(trained):
    """Of three new items with the same text a user gets the one of the genre that they like."""
    _, bundle_folder = trained
    with Engine.open(bundle_folder) as engine:
        engine.upsert_items(
            [{"id": genre, "text": "shoe number 1", "genre": genre} for genre in GENRES]
        )
        for taste, genre in enumerate(GENRES):
            for item in range(taste, 24, 3):
                engine.observe(genre, f"i{item}", "like")
            best = engine.recommend(genre, 1, among=GENRES, greedy=True)
            assert best[0].id == genre


def test_a_checkpoint_is_read_as_it_was_written(trained):
    """Types, vectors, features and their projection survive the folder."""
    folder, _ = trained
    opened = checkpoint.load(folder)
    assert opened.catalog.attributes["released"] == Attribute("time", learn=False)
    assert opened.catalog.vectors["image"].shape == (ITEMS, 12)
    assert opened.network.feature_project.abs().max() > 0
    assert torch.allclose(
        opened.network.items(), opened.network.content() + opened.network.residual
    )


def test_a_new_catalog_has_its_own_features(trained):
    """Kept items keep their residual, and features are those of the new attributes; unseen values
    count as missing."""
    folder, _ = trained
    opened = checkpoint.load(folder)
    table = pa.table(
        {
            "item_id": ["i3", "new", "stranger"],
            "text": ["chair number 3", "lamp", "lamp"],
            "genre": ["jazz", "jazz", "techno"],
            "price": [1.0, 5.0, None],
        }
    )
    catalog = read_catalog(table)
    change = change_between(opened.catalog, catalog)
    encode = lambda texts: np.zeros((len(texts), 32), np.float32)  # noqa: E731
    after = with_catalog(opened, catalog, change, encode)
    features = opened.features.schema
    mean = opened.features.mean.tolist()
    project = opened.network.feature_project.detach().numpy()
    added = after.network.content() - after.network.text @ after.network.project.T
    for row, record in enumerate(catalog.records):
        expected = project @ np.array(naive_features(features, mean, record), np.float32)
        assert np.allclose(added[row].detach(), expected, atol=1e-5)
    assert torch.equal(after.network.residual[0], opened.network.residual[3])
    assert not after.network.residual[1:].any()
    assert not added[2].any()


def random_network(catalog, seed=0):
    torch.manual_seed(seed)
    features = fit_features(catalog)
    table = attribute_table(features, catalog)
    config = Config(dim=4, state=6, hidden=6)
    n = len(catalog)
    network = PolicyNetwork(config, torch.randn(n, 5), torch.empty(0, 5), 1, table)
    with torch.no_grad():
        network.feature_project.normal_()
        network.residual.normal_()
    return network, features


def test_the_tower_is_a_sum_over_attributes():
    """Item vectors are A t + B ψ + ν with the features of the slow twin, for all items and for any
    rows, and in the sampled softmax."""
    catalog = read_catalog(catalog_table(np.random.default_rng(3)))
    network, features = random_network(catalog)
    columns = feature_columns(catalog)
    project = network.feature_project.detach().numpy()
    expected = (network.text @ network.project.T + network.residual).detach().numpy()
    for row in range(len(catalog)):
        record = {name: values[row] for name, values in columns.items()}
        image = record["image"]
        record["image"] = None if np.isnan(image).any() else image.tolist()
        mean = features.mean.tolist()
        expected[row] += project @ np.array(naive_features(features.schema, mean, record))
    assert np.allclose(network.items().detach(), expected, atol=1e-4)

    rows = torch.tensor([5, 5, 0, 88, 7])
    some = item_vectors(network, rows, None)
    assert torch.allclose(some, network.items()[rows], atol=1e-5)
    some.sum().backward()
    assert network.feature_project.grad.abs().max() > 0
    matrix = network.inputs(rows)[:, 5:]
    assert torch.allclose(
        matrix @ network.feature_project.T + network.text[rows] @ network.project.T,
        network.content(rows),
        atol=1e-5,
    )


def test_the_ridge_regression_leaves_items_out_exactly():
    """The closed form with features, at any share of them, equals fits without each item."""
    torch.manual_seed(0)
    inputs = torch.randn(12, 7)
    vectors = torch.randn(12, 3)
    for share in newcomers.SHARES:
        ridge = newcomers._Ridge(inputs, vectors, 4, share)
        project, left_out = ridge.solve(0.3)
        factor = torch.tensor([1.0] * 4 + [share] * 3).double()
        x, y = inputs.double() * factor, vectors.double()
        penalty = 0.3 * inputs[:, :4].double().square().sum() / 4 * torch.eye(7).double()
        whole = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
        assert torch.allclose(project.double(), (factor[:, None] * whole).T, atol=1e-5)
        for row in range(12):
            kept = torch.arange(12) != row
            without = torch.linalg.solve(x[kept].T @ x[kept] + penalty, x[kept].T @ y[kept])
            assert torch.allclose(left_out[row].double(), x[row] @ without, atol=1e-5)


def test_numbers_are_standardized_and_heavy_tails_compressed():
    """A normal number has mean 0 and deviation 1; one with a heavy tail is counted in quartiles
    from the median; what is alike in all items has no feature."""
    rng = np.random.default_rng(0)
    n = 400
    price = np.exp(rng.normal(3.0, 1.2, n))
    price[0] = 1e300
    table = pa.table(
        {
            "item_id": [f"i{row}" for row in range(n)],
            "text": ["x"] * n,
            "year": rng.normal(1990.0, 10.0, n),
            "price": price,
            "same": [5.0] * n,
            "mostly": [0.0] * (n - 3) + [1.0, 2.0, 900.0],
            "sku": [f"sku {row}" for row in range(n)],
            "shelf": [f"shelf {row % 300}" for row in range(n)],
            "empty": pa.array([[0.0] * 8] * n),
        }
    )
    catalog = read_catalog(table)
    features = fit_features(catalog)
    named = {feature.name: feature for feature in features.schema.features}
    assert set(named) == {"year", "price", "mostly", "shelf"}
    assert named["price"].is_heavy_tailed
    assert not named["year"].is_heavy_tailed
    # 100 shelves have two items and 200 one, which says nothing of others.
    assert len(named["shelf"].values) == 100 <= MAX_VALUES
    dense = features.features(feature_columns(catalog), n).dense
    year, compressed = dense[:, 0], dense[:, 1]
    assert abs(year.mean()) < 1e-3
    assert year.std() == pytest.approx(1.0, abs=1e-3)
    assert compressed.std() < 2.0
    assert abs(np.median(compressed)) < 1e-3


def test_a_catalog_without_attributes_has_no_features():
    """Network, checkpoint and bundle are what they were; a title is no attribute."""
    table = pa.table({"item_id": ["a", "b"], "text": ["x", "y"], "title": ["X", "Y"]})
    catalog = read_catalog(table)
    assert fit_features(catalog) is None
    assert attribute_table(None, catalog) is None
    network = PolicyNetwork(Config(dim=4), torch.randn(2, 5), torch.empty(0, 5), 1)
    assert not [name for name in network.state_dict() if "feature" in name or "attribute" in name]
    assert checkpoint._feature_tensors(network, None) == {}
