"""Cases of features: what attributes of added items and contexts of requests become."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import msgspec
import numpy as np

from sanderling.arguments import check_context
from sanderling.bundle.features import FeatureTensors
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking.added_items import item_text, vectors_of_new
from sanderling.ranking.catalog_overlay import addition
from sanderling.ranking.contexts import check_values, context_vector
from sanderling.ranking.features import FeatureMap
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.scorer import Scorer, Vector
from tests.conformance.files import ROOT, CaseFile, packed
from tests.conformance.make_bundles import DAYS
from tests.conformance.randoms import pick, some, unit_vector, whole

BUNDLE = "tests/conformance/bundles/features"
NOW_MS = 1_750_000_000_000
TEXTS = 8
"""Vectors that texts may have."""

Case = dict[str, Any]

NUMBERS: list[Any] = [0, -0.0, 20, 12.5, 19.99, 1e-7, 47.25, -1e6, 1e308, 10**300, 2**60 + 1, None]
CATEGORIES: list[Any] = ["sea", "crime", 7, True, 1, False, 0.25, 1e-05, "jazz", "folk", "größe", 3]
UNSEEN: list[Any] = ["", "unseen ☂", 8.5, 1e-07, 123456789.125]
VALUES: dict[str, Callable[[Random], Any]] = {
    "price": lambda rng: pick(rng, NUMBERS),
    "year": lambda rng: pick(rng, [*NUMBERS, whole(rng, 1900, 2030)]),
    "new": lambda rng: pick(rng, [True, False, None]),
    "released": lambda rng: pick(rng, [*DAYS, 0, 1.5e9, None]),
    "image": lambda rng: pick(rng, [_image(rng), _image(rng), [1e-30, *[0] * 8], [0] * 9, None]),
    "shelf": lambda rng: pick(rng, [*CATEGORIES, *UNSEEN, None]),
    "genres": lambda rng: some(rng, [*CATEGORIES, *UNSEEN], whole(rng, 0, 5)),
    "title": lambda rng: pick(rng, ["A title", "", "blue tent"]),
    "colour": lambda rng: pick(rng, CATEGORIES),
}
"""By attribute what draws a value of an added item; the release does not know the last one."""

CONTEXTS: dict[str, Callable[[Random], Any]] = {
    "temperature": lambda rng: pick(rng, NUMBERS),
    "weekend": lambda rng: pick(rng, [True, False, None]),
    "since": lambda rng: pick(rng, [*DAYS, 0, 1.7e9]),
    "hour": lambda rng: pick(rng, [whole(rng, 0, 23), whole(rng, 0, 23), 24, "18", True, None]),
    "device": lambda rng: pick(rng, ["tv", "phone", "watch", "", 7]),
    "places": lambda rng: pick(rng, ["home", [], some(rng, ["home", "train", "Zürich", "sea"], 3)]),
    "mood": lambda rng: pick(rng, ["good", {"of": "the app"}]),
}
"""By name what draws a value of a context; the release does not know the last one."""

WORDS = ["blue tent", "  jazz, \u2003", "größe ☂", "\x1fA whaling voyage."]

WRONG_ITEMS: list[tuple[str, Any]] = [
    ("price", "free"), ("price", True), ("price", [1]), ("year", "1999"), ("new", 1),
    ("new", "yes"), ("released", "soon"), ("released", False), ("image", [1.0]),
    ("image", "cat.png"), ("image", ["a"] * 9), ("image", [True] * 9), ("title", 7),
    ("title", ["x", 7]), ("title", [["x"]]), ("title", {}),
]  # fmt: skip
WRONG_CONTEXTS: list[Any] = [
    7, True, [], ["rain"], {"text": 7}, {"text": ["rain"]}, {"text": False},
    {"temperature": "warm"}, {"temperature": True}, {"temperature": [1]}, {"weekend": 1},
    {"weekend": "yes"}, {"since": "yesterday"}, {"since": {}}, {"hour": [18]}, {"hour": []},
    {"hour": {}}, {"device": ["tv"]}, {"places": {}}, {"places": ["home", None]},
    {"places": [["home"]]}, {"text": "rain", "device": {"os": "tv"}, "hour": [1]},
]  # fmt: skip
WRONG_SCHEMAS: list[Any] = [
    [], 7, "x", {"columns": []}, {"features": {}}, {"features": [7]}, {"features": [{}]},
    {"features": [{"name": "a"}]}, {"features": [{"name": 1, "type": "number"}]},
    {"features": [{"name": "a", "type": "x"}]}, {"features": [{"name": "a", "type": "text"}]},
    {"features": [{"name": "a", "type": "number"}] * 2}, {"texts": [1]}, {"texts": "shelf"},
    {"features": [{"name": "a", "type": "number", "scale": 0.0}]},
    {"features": [{"name": "a", "type": "number", "scale": -1}]},
    {"features": [{"name": "a", "type": "number", "scale": "1"}]},
    {"features": [{"name": "a", "type": "number", "is_heavy_tailed": 1}]},
    {"features": [{"name": "a", "type": "number", "unit": "EUR"}]},
    {"features": [{"name": "a", "type": "category"}]},
    {"features": [{"name": "a", "type": "category", "values": ["x", None]}]},
    {"features": [{"name": "a", "type": "category", "values": [["x"]]}]},
    {"features": [{"name": "a", "type": "vector"}]},
    {"features": [{"name": "a", "type": "vector", "width": 1.5}]},
    {"features": [
        {"name": "a", "type": "category", "values": ["x"]}, {"name": "b", "type": "number"},
    ]},
]  # fmt: skip


def feature_cases() -> CaseFile:
    """Return what attributes and contexts become, and the errors of wrong ones."""
    rng = Random(91)
    vectors = [unit_vector(rng, _scorer().bundle.manifest.sizes.text) for _ in range(TEXTS)]
    cases = [_item(rng, vectors) for _ in range(160)] + [_context(rng, vectors) for _ in range(160)]
    cases += _wrong()
    shared = {"bundles": {"features": BUNDLE}, "texts": list(map(packed, vectors))}
    about = "Attributes of added items, and contexts, to features and vectors; or to the error."
    return CaseFile(about, shared, cases)


def _wrong() -> list[Case]:
    """Return what is refused, with the error."""
    items = [{"id": "new-1", "text": "blue tent", name: value} for name, value in WRONG_ITEMS]
    schemas = [(schema, of) for schema in WRONG_SCHEMAS for of in ("item", "context")]
    schemas.append(({"features": [{"name": "a", "type": "vector", "width": 2}]}, "context"))
    return [
        *({"item": item} | _fault(_check_item, item) for item in items),
        *({"context": given} | _fault(_check_context, given) for given in WRONG_CONTEXTS),
        *(
            {"schema": schema, "of": of} | _fault(_check_schema, schema, of)
            for schema, of in schemas
        ),
    ]


@cache
def _scorer() -> Scorer:
    return Scorer(Bundle.open(ROOT / BUNDLE, verify=True))


class _Encoder:
    """Returns one vector [t] for any text."""

    def __init__(self, vector: Vector) -> None:
        self._vector = vector

    def encode_item(self, text: str, *, keep: bool = True) -> Vector:
        return self._vector


def _image(rng: Random) -> list[Any]:
    return [pick(rng, [whole(rng, -5, 5), 2.0 * rng.random() - 1.0, 1e30]) for _ in range(9)]


def _drawn(rng: Random, values: dict[str, Callable[[Random], Any]]) -> Case:
    return {name: draw(rng) for name, draw in values.items() if rng.random() < 0.6}


def _item(rng: Random, vectors: list[Vector]) -> Case:
    """Return an added item with its text as the encoder reads it, features, vector, and row."""
    item = {"id": "new-1", "text": pick(rng, WORDS), **_drawn(rng, VALUES)}
    bundle = _scorer().bundle
    found = bundle.item_features
    assert found is not None
    record = addition(item, NOW_MS)
    place = whole(rng, 0, TEXTS - 1)
    encoder: Any = _Encoder(vectors[place])
    vector = vectors_of_new(bundle, encoder, [record])
    rows, scale = quantize_rows(vector)
    return {
        "item": item,
        "encoded": place,
        "text": item_text(record, found.schema),
        "features": packed(FeatureMap.of(found).features_of([record])[0]),
        "vector": packed(vector[0]),
        "row": rows[0].tolist(),
        "scale": float(scale[0]),
    }


def _context(rng: Random, vectors: list[Vector]) -> Case:
    """Return a context with its vector, if it says anything, and the best items in it."""
    scorer = _scorer()
    given: Any = _drawn(rng, CONTEXTS)
    if rng.random() < 0.5:
        given["text"] = pick(rng, [*WORDS, "", None])
    given = pick(rng, [*[given] * 9, "rain", ""])
    context = check_context(given)
    check_values(context, scorer.context_features)
    place = whole(rng, 0, TEXTS - 1)
    t = scorer.bundle.manifest.sizes.text
    vector = context_vector(context, scorer.context_features, lambda text: vectors[place], t)
    events = [(f"item-{whole(rng, 0, 29)}", "click") for _ in range(whole(rng, 0, 2))]
    state = scorer.user_model.initial_state()
    for item, kind in events:
        row = scorer.find(item)
        assert row is not None
        state = scorer.user_model.step(state, scorer.vector(row), kind)
    user = scorer.user_model.user_vector(state, vector)
    best = scorer.rank(user, 3)
    return {
        "context": given,
        "encoded": place,
        "vector": None if vector is None else packed(vector),
        "events": events,
        "user": packed(user),
        "rows": best.rows.tolist(),
        "scores": best.scores.tolist(),
    }


def _check_item(item: Case) -> None:
    _scorer().check_added([addition(item, NOW_MS)])


def _check_context(given: Any) -> None:
    check_values(check_context(given), _scorer().context_features)


def _check_schema(schema: Any, of: str) -> None:
    tensors: dict[str, Any] = {
        f"{of}.features": np.frombuffer(msgspec.json.encode(schema), np.uint8)
    }
    FeatureTensors.of(tensors, of, 10)


def _fault(check: Callable[..., None], *given: Any) -> Case:
    try:
        check(*given)
    except (TypeError, ValueError, BundleError) as error:
        return {"raises": type(error).__name__, "error": str(error)}
    raise AssertionError("expected an error")
