"""The vectors of items that a device added: from their texts and typed attributes, as the lab gives
them to new items of its catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.features import FeatureSchema
from sanderling.bundle.reader import Bundle
from sanderling.ranking.features import FeatureMap
from sanderling.ranking.index import Int8Index
from sanderling.ranking.item_text import described
from sanderling.ranking.overlay import empty_index
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.text_encoder import TextEncoder

Record = Mapping[str, Any]


def vectors_of_new(
    bundle: Bundle, encoder: TextEncoder, records: Sequence[Record], *, keep: bool = True
) -> NDArray[np.float32]:
    """Return the vectors [r, d] of new items, at least one, given what `upsert_items` got.

    The vectors of their texts are kept for the next time if `keep`.
    """
    found = bundle.item_features
    texts = [item_text(record, found.schema if found else None) for record in records]
    inputs = np.stack([encoder.encode_item(text, keep=keep) for text in texts])
    project = bundle.policy["item.project"]
    if found is not None:
        features = FeatureMap.of(found).features_of(records)
        inputs = np.concatenate([inputs, features], axis=1)
        project = np.concatenate([project, found.project], axis=1)
    return _products(project, inputs)


def _products(project: NDArray[np.float32], inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the products [r, d] of a matrix [d, i] and inputs [r, i], with the same bits on every
    machine: sums are in the order of i (docs/MATH.md, "Equal bits")."""
    sums = np.zeros((len(inputs), len(project)))
    for weights, values in zip(project.T, inputs.T, strict=True):
        if values.any():
            sums += np.multiply.outer(values, weights, dtype=np.float64)
    return sums.astype(np.float32)


def item_text(record: Record, schema: FeatureSchema | None) -> str:
    """Return the text of an added item as the lab's language model reads a catalog's."""
    text: str = record["text"]
    if schema is None:
        return text
    # Without a title an added item is shown with its text, which is no second one.
    names = [name for name in schema.texts if name != "title" or record.get(name) != text]
    return described(text, record, names)


def index_of(
    bundle: Bundle,
    encoder: TextEncoder,
    added: Sequence[Record],
    kept: Mapping[str, int],
    before: Int8Index,
) -> Int8Index:
    """Return the index of added items; those of `kept` have the row of `before` that it names."""
    dim = bundle.manifest.sizes.dim
    if not added:
        return empty_index(dim)
    rows = np.empty((len(added), dim), np.int8)
    scale = np.empty(len(added), np.float32)
    is_kept = np.array([record["id"] in kept for record in added], np.bool_)
    places = [kept[record["id"]] for record in added if record["id"] in kept]
    rows[is_kept] = before.rows[places]
    scale[is_kept] = before.scale[places]
    new = [record for record in added if record["id"] not in kept]
    if new:
        rows[~is_kept], scale[~is_kept] = quantize_rows(vectors_of_new(bundle, encoder, new))
    bias = np.full(len(added), bundle.policy["item.bias"][0], np.float32)
    return Int8Index(rows, scale, bias)
