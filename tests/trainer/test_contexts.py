"""Contexts of requests: declared features from the log to the device and back, and texts that move
scores where no log had any."""

from __future__ import annotations

import base64

import numpy as np
import pyarrow as pa
import pytest
import torch

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.errors import TableError
from sanderling.tables.event_log import ReadOptions
from sanderling_quantize import quantize
from sanderling_trainer import train
from sanderling_trainer.data.schema import Attribute
from sanderling_trainer.data.tables import Interactions, read_catalog, read_interactions
from sanderling_trainer.event_log.examples import _ExampleBuilder
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.contexts import context_vectors, fit_context_features
from sanderling_trainer.policy.fit import TextVectors, TrainingPart, initial_network
from sanderling_trainer.policy.model.config import Config
from tests.support.engines import stored
from tests.support.naive_features import naive_features
from tests.support.worlds import THINGS, write_language_model

pytestmark = pytest.mark.lab

ITEMS = 40
TYPES = {"hour": Attribute("number"), "device": Attribute("category")}
SETTINGS = {
    "train_anyway": True,
    "dim": 16,
    "epochs": 20,
    "batch_events": 128,
    "learning_rate": 0.02,
    "holdout": 0.0,
    "visit_hours": 0.0,
    "horizon_days": 0.0,
    "seed": 0,
}


def items():
    return pa.table(
        {
            "item_id": [f"i{row}" for row in range(ITEMS)],
            "text": [f"{THINGS[row % 10]} number {row}" for row in range(ITEMS)],
        }
    )


def log(rng):
    """Return what users liked: items of the first half on a phone, of the second on a tv."""
    rows = []
    for user in range(60):
        for step in range(12):
            on_tv = rng.random() < 0.5
            item = rng.integers(ITEMS // 2) + ITEMS // 2 * on_tv
            hour = float(rng.integers(24))
            rows.append((f"u{user}", f"i{item}", 10**9 + 10**5 * user + 60 * step,
                         "tv" if on_tv else "phone", hour))  # fmt: skip
    users, chosen, times, devices, hours = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": users,
            "item_id": chosen,
            "timestamp": times,
            "device": devices,
            "hour": hours,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that learned from contexts, and its bundle."""
    folder = tmp_path_factory.mktemp("contexts")
    model = write_language_model(folder / "model")
    done = train(
        log(np.random.default_rng(0)),
        folder / "checkpoint",
        items(),
        schema={"context": {"hour": "number", "device": "category", "place": "category"}},
        language_model=str(model),
        **SETTINGS,
    )
    return done.checkpoint, quantize(done.checkpoint, folder / "bundle", encoder="base").folder


def test_a_declared_feature_moves_scores_as_the_log_taught(trained, tmp_path):
    """On a tv another half of the catalog is shown than on a phone; names that the release does not
    know, and values that no log had, change nothing."""
    _, folder = trained
    with Engine.open(folder, tmp_path) as engine:
        for device, first in (("phone", 0), ("tv", ITEMS // 2)):
            slate = engine.recommend("anna", 10, {"device": device, "hour": 9}, greedy=True)
            rows = [int(item.id[1:]) for item in slate]
            assert sum(first <= row < first + ITEMS // 2 for row in rows) >= 8
        plain = engine.recommend("anna", 10, greedy=True)
        for context in ({}, {"devcie": "tv"}, {"device": "fridge"}, {"device": None}):
            slate = engine.recommend("anna", 10, context, greedy=True)
            assert [item.score for item in slate] == [item.score for item in plain]


def test_a_context_is_one_vector_on_device_and_in_the_lab(trained, tmp_path):
    """What a decision's event carries is what the lab learned from: the text's vector, then the
    features of the slow twin; the lab reads it back, with or without text."""
    checkpoint_folder, folder = trained
    bundle = Bundle.open(folder, verify=True)
    found = bundle.context_features
    assert {feature.name for feature in found.schema.features} == {"hour", "device"}
    opened = checkpoint.load(checkpoint_folder)
    t = bundle.manifest.sizes.text
    width = t + found.schema.columns
    assert opened.network.contexts.shape == (0, width)

    contexts = [
        {"device": "tv", "hour": 21, "text": "a quiet evening"},
        {"hour": 3},
        {"device": "phone"},
        {"text": "a quiet evening"},
        "a quiet evening",
    ]
    with Engine.open(folder, tmp_path, share_context=True) as engine:
        for context in contexts:
            engine.recommend("anna", 3, context)
        encoder = engine._active_bundle.scorer.encoder
        expected = []
        for context in contexts:
            given = {"text": context} if isinstance(context, str) else context
            text = encoder.encode(given["text"]) if "text" in given else np.zeros(t, np.float32)
            features = naive_features(found.schema, found.mean.tolist(), given)
            expected.append(np.concatenate([text, np.array(features, np.float32)]))
        logged = [event for event in stored(engine) if event.context is not None]
    vectors = [np.frombuffer(base64.b64decode(event.context), np.float32) for event in logged]
    assert np.allclose(vectors, expected, atol=1e-6)

    builder = _ExampleBuilder({}, {}, t, {}, frozenset(), found.schema.columns)
    rows = [builder._context_row(vector) for vector in vectors]
    assert rows == [0, 1, 2, 3, 3]
    # A release without features logs the text alone.
    assert builder._context_row(vectors[0][:t]) == 3
    assert builder._context_row(vectors[0][:-1]) == -1
    assert builder.build().contexts.shape == (4, width)


@pytest.mark.parametrize(("context", "expected"), [
    ({"hour": "late"}, "context: hour: expected a number, found 'late'"),
    ({"hour": True}, "context: hour: expected a number, found True"),
    ({"device": ["tv"]}, "context: device: expected one text, number or boolean, found"),
    ({"device": {"a": 1}}, "context: device: expected texts, numbers or booleans, found"),
    ({"text": 3}, "context: text: expected str or None, found int"),
    ({3: "tv"}, "context: expected a text, features by name, or None, found dict"),
    (3, "context: expected a text, features by name, or None, found int"),
])  # fmt: skip
def test_a_wrong_context_is_one_error(trained, context, expected):
    """It names the feature, what was expected and found, and decides nothing."""
    with Engine.open(trained[1]) as engine, pytest.raises(TypeError, match=expected):
        engine.recommend("anna", 3, context)


def test_reasons_say_what_a_context_did(trained):
    """`why` has the effect of features and text together, and that of the text's words."""
    with Engine.open(trained[1]) as engine:
        slate = engine.recommend("anna", 3, {"device": "tv", "text": "quiet"}, greedy=True)
        alone = engine.recommend("anna", 3, {"device": "tv"}, greedy=True)
        assert alone[0].why().context_effect > 0
        assert slate[0].why().context_effect is not None
        assert [word.word for word in slate[0].why().words] == ["quiet"]


def test_columns_of_the_log_are_features_of_contexts():
    """Rows with the same text and values share a context; rows without either have none; a wrong
    cell is one error, which names its row of the table, also where rows above are left out."""
    catalog = read_catalog(items())
    table = pa.table(
        {
            "user_id": ["a"] * 4,
            "item_id": ["i1"] * 4,
            "timestamp": [4, 3, 2, 1],
            "context": ["rain", "rain", None, None],
            "device": ["tv", "tv", "tv", None],
            "hour": [None, None, "9", None],
        }
    )
    found = read_interactions(table, catalog, context=TYPES)
    assert found.context.tolist() == [-1, 0, 1, 1] or found.context.tolist() == [-1, 1, 0, 0]
    pairs = dict(zip(found.contexts, found.context_values, strict=True))
    assert pairs == {"": {"device": "tv", "hour": 9}, "rain": {"device": "tv"}}
    late = table.set_column(5, "hour", pa.array(["late"] * 4))
    with pytest.raises(TableError, match="row 1, column `hour`: expected a number, found `late`"):
        read_interactions(late, catalog, context=TYPES)
    lacking = late.set_column(0, "user_id", pa.array([None, None, "a", "a"]))
    with pytest.raises(TableError, match="row 3, column `hour`: expected a number, found `late`"):
        read_interactions(
            lacking, catalog, options=ReadOptions(drop_incomplete=True), context=TYPES
        )


def test_a_fit_of_another_schema_is_not_resumed(tmp_path, monkeypatch):
    """What an interrupted fit leaves has a name by the features: their parameters would not fit."""
    names = []

    def interrupted(part, config, vectors, options):
        names.append(options.unfinished.name)
        raise InterruptedError

    monkeypatch.setattr("sanderling_trainer.policy.train.fit_policy", interrupted)
    model = str(write_language_model(tmp_path / "model"))
    events = log(np.random.default_rng(0))
    for kind in ("number", "category", "number"):
        schema = {"context": {"hour": kind}}
        with pytest.raises(InterruptedError):
            train(events, tmp_path / kind, items(), schema=schema, language_model=model, **SETTINGS)
    assert names[0] == names[2] != names[1]


def test_context_vectors_are_texts_and_features():
    """An empty text has the vector 0, and features are those of the slow twin."""
    values = [{"hour": 3.0, "device": "tv"}, {"device": "phone"}, {}]
    features = fit_context_features(TYPES, [*values, {"hour": 20.0}])
    vectors = context_vectors(
        ["", "rain", ""], values, features, lambda texts: np.ones((len(texts), 4), np.float32)
    )
    assert vectors[:, :4].tolist() == [[0.0] * 4, [1.0] * 4, [0.0] * 4]
    expected = [naive_features(features.schema, [], each) for each in values]
    assert np.allclose(vectors[:, 4:], expected, atol=1e-6)
    assert fit_context_features({}, values) is None
    assert fit_context_features({"place": Attribute("category")}, values) is None


@pytest.mark.parametrize("linear_start", [False, True])
def test_a_texts_context_starts_as_likeness_of_texts(linear_start):
    """Where the log has texts as contexts, an untrained network ranks first the item whose text the
    context is, by scores of deviation 1; a linear start has vectors of no texts, and C = 0."""
    texts = torch.nn.functional.normalize(torch.randn(12, 32, generator=torch.manual_seed(0)))
    rows = np.arange(12)
    zeros = np.zeros(12, np.int64)
    names = [str(row) for row in rows]
    reward = np.ones(12, np.float32)
    events = Interactions(rows, rows, rows + 1, reward, zeros, rows, names, ["like"], names)
    config = Config(dim=32, linear_start=linear_start)
    vectors = TextVectors(texts, texts, device=torch.device("cpu"))
    network = initial_network(TrainingPart(events, 12, True), config, vectors)
    scores = (texts @ network.context_project.T @ network.items().T).detach()
    if linear_start:
        assert not scores.any()
    else:
        assert (scores.argmax(1) == torch.arange(12)).all()
        assert float(scores.var(dim=1).mean().sqrt()) == pytest.approx(1.0, abs=1e-4)


def test_a_text_moves_scores_that_no_log_had_a_context_for(tmp_path):
    """Without contexts in the log the projection is that of items' texts, scaled to half of the
    deviation that users' scores have: an item's own text as a context raises that item."""
    model = write_language_model(tmp_path / "model")
    plain = log(np.random.default_rng(0)).select(["user_id", "item_id", "timestamp"])
    done = train(plain, tmp_path / "checkpoint", items(), language_model=str(model), **SETTINGS)
    network = checkpoint.load(done.checkpoint).network
    ratio = network.context_project / network.project
    assert ratio.std() < 1e-4 * ratio.mean()
    assert ratio.mean() > 0

    vectors = network.items()
    of_contexts = network.text @ network.context_project.T @ vectors.T
    assert of_contexts.diagonal().mean() > of_contexts.mean()
    plain_user = network.users(torch.zeros(1, network.shift.shape[0]))
    assert 0.05 < of_contexts.std() / (plain_user @ vectors.T).std() < 20.0

    folder = quantize(done.checkpoint, tmp_path / "bundle", encoder="base").folder
    with Engine.open(folder) as engine:
        without, rain, tent = (
            [item.score for item in engine.recommend("anna", 10, context, greedy=True)]
            for context in (None, "rain", "a tent")
        )
        assert without != rain != tent
