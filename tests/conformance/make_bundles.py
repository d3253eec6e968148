"""Writes bundles/, the bundles of the conformance set; run it only for a new format of bundles.

`shop` has attributes of every type as columns, newcomers, items with equal scores and ids from all
of Unicode; its sizes are no multiples of 4. `ruled` has rules and an experiment of its own,
`features` attributes of every type, vectors too, and contexts whose features its policy reads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from sanderling.bundle.columns import AttributeType
from sanderling.bundle.features import CONTEXT, ITEM, Feature, FeatureSchema, FeatureTensors
from sanderling.bundle.golden import Golden, GoldenState, GoldenText
from sanderling.bundle.manifest import Arm, Experiment, Exploration, Prefixes, Rules, Sizes
from sanderling.bundle.reader import Bundle
from sanderling.ranking.column_file import write_columns
from sanderling.ranking.golden_check import top_after
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import TEXT, record, reseal, write_bundle
from tests.support.malformed_bundles import change

FOLDER = Path(__file__).with_name("bundles")

ITEMS = 150
BRANDS = ["Acme", "Müller", "日本堂", "O'Neil", "", "acme"]
TAGS = ["jazz", "folk", "sci-fi", "crime", "größe", "☂"]
DAYS = ["2024-02-29", "2025-01-01T12:00:00+02:00", "2025-01-01T10:00:00Z", "1969-12-31 23:59"]
MIXED: list[Any] = [7, "7", True, 7.0, ["7", 7], [False, "x"], [], None]
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one character to people, five to Unicode
ODD_IDS = {
    3: "größe 42 ☂",
    17: "日本語",
    31: "a/b?c#d",
    45: FAMILY,
    59: "x" * 90,
    73: "null\0byte",
    87: '"quoted" \\',
}
TWINS = slice(10, 15)  # rows with the same score for every user


def attributes_of(row: int) -> dict[str, Any]:
    """Return the attributes of a shop's item; most lack some."""
    rng = np.random.default_rng(row)
    values: dict[str, Any] = {
        "price": float(rng.integers(100, 9000)) / 100,
        "stock": int(rng.integers(0, 5)),
        "brand": BRANDS[int(rng.integers(0, len(BRANDS)))],
        "tags": [TAGS[i] for i in np.flatnonzero(rng.random(len(TAGS)) < 0.3)],
        "sale": bool(rng.random() < 0.3),
        "released": DAYS[int(rng.integers(0, len(DAYS)))],
        "mixed": MIXED[int(rng.integers(0, len(MIXED)))],
    }
    present = {name: value for name, value in values.items() if rng.random() < 0.9}
    if "mixed" in present and present["mixed"] is None:
        del present["mixed"]
    return {"id": ODD_IDS.get(row, f"item-{row}"), **present}


def write_shop(folder: Path) -> None:
    """Write the bundle `shop`."""
    write_bundle(
        folder,
        items=ITEMS,
        dim=18,
        seed=7,
        state=10,
        newcomers=range(4, ITEMS, 11),
        attributes=attributes_of,
        with_columns=True,
        app="shop",
        release=7,
        sizes=Sizes(items=ITEMS, dim=18, state=10, text=TEXT, max_tokens=24),
        exploration=Exploration(epsilon=0.2, pool=24, newcomers=0.4),
    )

    def equal(tensor: np.ndarray) -> np.ndarray:
        tensor[TWINS] = tensor[TWINS.start]
        return tensor

    for name in ("rows", "scale", "bias"):
        change("items.safetensors", name, equal)(folder)
    _golden(folder)


def write_ruled(folder: Path) -> None:
    """Write the bundle `ruled`."""
    rules = Rules(
        where={"stock": {"ge": 1}},
        at_most={"brand": 4},
        boost=[{"where": {"sale": True}, "by": 0.5}],
        diversity=0.2,
    )
    arms = (
        Arm("popular", 0.25, personalized=False),
        Arm("softer", 0.25, Exploration("softmax", 0.3, pool=12, temperature=0.5)),
        Arm("as-before", 0.2),
    )
    write_bundle(
        folder,
        items=40,
        dim=8,
        seed=8,
        state=6,
        newcomers=[5, 21],
        attributes=attributes_of,
        with_columns=True,
        app="ruled",
        release=3,
        sizes=Sizes(items=40, dim=8, state=6, text=TEXT, max_tokens=24),
        exploration=Exploration(epsilon=0.25, pool=15, guarded=1),
        experiment=Experiment("autumn", arms),
        rules=rules,
        prefixes=Prefixes("passage: ", "query: "),
    )


ITEM_FEATURES = FeatureSchema(
    (
        Feature("price", "number", centre=20.0, scale=8.0, is_heavy_tailed=True),
        Feature("year", "number", centre=1990.0, scale=12.0),
        Feature("new", "boolean", centre=0.25, scale=0.4),
        Feature("released", "time", centre=1.6e9, scale=1e8),
        Feature("image", "vector", scale=0.9, width=9),
        Feature("shelf", "category", values=("sea", "crime", 7, True, 1, 0.25)),
        Feature("genres", "categories", values=("jazz", "folk", "größe", 3)),
    ),
    ("title", "shelf", "genres"),
)
CONTEXT_FEATURES = FeatureSchema(
    (
        Feature("temperature", "number", centre=12.5, scale=7.0),
        Feature("weekend", "boolean", centre=0.3, scale=0.45),
        Feature("since", "time", centre=1.7e9, scale=3e7, is_heavy_tailed=True),
        Feature("hour", "category", values=tuple(range(24))),
        Feature("device", "category", values=("tv", "phone")),
        Feature("places", "categories", values=("home", "train", "Zürich")),
    ),
)


def written_on(row: int) -> dict[str, Any]:
    """Return the attributes of an item of `features`; catalogs of bundles have no vectors."""
    rng = np.random.default_rng(row)
    return {
        "price": float(rng.integers(100, 9000)) / 100,
        "year": int(rng.integers(1960, 2026)),
        "new": bool(rng.random() < 0.3),
        "released": DAYS[int(rng.integers(0, len(DAYS)))],
        "shelf": ["sea", "crime", 7, True, 0.25][int(rng.integers(0, 5))],
        "genres": [["jazz"], ["folk", "größe"], [3, "other"]][int(rng.integers(0, 3))],
    }


def write_features(folder: Path) -> None:
    """Write the bundle `features`."""
    items, dim = 30, 10
    write_bundle(
        folder,
        items=items,
        dim=dim,
        seed=9,
        state=6,
        newcomers=[3],
        attributes=written_on,
        app="features",
        release=2,
    )
    entries = [record(row) | written_on(row) for row in range(items)]
    types: dict[str, AttributeType] = {"image": "vector", "genres": "categories", "title": "text"}
    write_columns(folder, entries, types)
    rng = np.random.default_rng(10)
    tensors = load_file(folder / "policy.safetensors")
    for of, schema in ((ITEM, ITEM_FEATURES), (CONTEXT, CONTEXT_FEATURES)):
        project = rng.standard_normal((dim, schema.columns)).astype(np.float32) / np.float32(2.0)
        mean = rng.standard_normal(schema.vector_columns).astype(np.float32) / np.float32(9.0)
        tensors |= FeatureTensors(schema, project, mean).tensors(of)
    save_file(tensors, folder / "policy.safetensors")
    reseal(folder)


def _golden(folder: Path) -> None:
    """Write the golden answers of a bundle whose items were changed."""
    scorer = Scorer(Bundle.open(folder))
    texts = ["red trail shoe", "rainy sunday evening", ""]
    histories: list[list[tuple[str, str]]] = [[], [("item-0", "click")], [("日本語", "purchase")]]
    golden = Golden(
        texts=[GoldenText(text, scorer.encoder.encode(text).tolist()) for text in texts],
        states=[GoldenState(events, top_after(scorer, events)) for events in histories],
    )
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    reseal(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    write_shop(target / "shop")
    write_ruled(target / "ruled")
    write_features(target / "features")
