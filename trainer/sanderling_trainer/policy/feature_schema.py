"""Fits how a catalog's typed attributes become features: centres and scales of numbers, the values
of categories that have a column of their own, the means of vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.features import CATEGORIES, Feature, FeatureSchema
from sanderling.ranking import attributes
from sanderling.ranking.features import FeatureMap, vector_features
from sanderling_trainer.data.schema import Attribute
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.policy.model.attribute_table import AttributeTable

MAX_VALUES = 256
"""Values of one category that have a column."""

MAX_COLUMNS = 1024
"""Columns of all categories together."""

HEAVY_TAIL = 6.0
"""Standard deviations from the mean; an attribute with a number beyond has a heavy tail."""

NORMAL_IQR = 1.349
"""Between the quartiles of a normal distribution of standard deviation 1."""


def fit_features(catalog: Catalog) -> FeatureMap | None:
    """Return how the attributes of a catalog become features; None where it has none but titles.

    What says nothing of items has no feature: texts, which the language model reads, attributes
    that are all alike, and those that are not to be learned.
    """
    if set(catalog.attributes) <= {"title"}:
        return None
    columns = feature_columns(catalog)
    features, mean = fit_columns(catalog.attributes, columns)
    return FeatureMap(FeatureSchema(tuple(features), catalog.text_attributes), mean)


def attribute_table(features: FeatureMap | None, catalog: Catalog) -> AttributeTable | None:
    """Return the features of a catalog's attributes, None where there are none."""
    if features is None or not features.schema.columns:
        return None
    found = features.features(feature_columns(catalog), len(catalog))
    return AttributeTable.of(found, features.schema.columns)


def feature_columns(catalog: Catalog) -> dict[str, Any]:
    """Return the values of a catalog's attributes by name."""
    names = [name for name in catalog.attributes if name not in catalog.vectors]
    values = {name: [record.get(name) for record in catalog.records] for name in names}
    return {**values, **catalog.vectors}


def fit_columns(
    declared: Mapping[str, Attribute], columns: Mapping[str, Any]
) -> tuple[list[Feature], NDArray[np.float32]]:
    """Return the features of attributes with these values, categories last, and the means of
    vectors, one after the other."""
    dense = []
    means = [np.empty(0, np.float32)]
    categories = {}
    for name, attribute in declared.items():
        values = columns[name]
        if not attribute.learn or attribute.type == "text":
            continue
        if attribute.type in CATEGORIES:
            categories[name] = frequent_values(values)
        elif attribute.type == "vector":
            feature, mean = _of_vectors(name, values)
            if feature is not None:
                dense.append(feature)
                means.append(mean)
        else:
            feature = _of_numbers(name, attribute, values)
            dense += [feature] if feature else []
    chosen = _most_frequent(categories)
    of_categories = [
        Feature(name, declared[name].type, values=values)
        for name, values in chosen.items()
        if values
    ]
    return [*dense, *of_categories], np.concatenate(means)


def _of_numbers(name: str, attribute: Attribute, values: Sequence[Any]) -> Feature | None:
    """Return the feature of numbers, times or booleans; None where they are all alike.

    Units are standard deviations from the mean, or, with a heavy tail, quartile distances from the
    median under asinh: linear near the median and logarithmic far from it.
    """
    column = attributes.make_column(values, attribute.type)
    assert isinstance(column, attributes.ScalarColumn)
    numbers = column.numbers[np.isfinite(column.numbers)]
    if len(numbers) < 2 or numbers.min() == numbers.max():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        centre = float(numbers.mean())
        scale = float(numbers.std())
        farthest = float(np.abs(numbers - centre).max())
    is_light = np.isfinite(scale) and farthest <= HEAVY_TAIL * scale
    is_heavy_tailed = attribute.type != "boolean" and not is_light
    if is_heavy_tailed:
        low, centre, high = (float(each) for each in np.quantile(numbers, [0.25, 0.5, 0.75]))
        scale = (high - low) / NORMAL_IQR or float(np.abs(numbers - centre).mean())
    if not (np.isfinite(centre) and np.isfinite(scale) and scale > 0.0):
        return None
    return Feature(name, attribute.type, centre, scale, is_heavy_tailed)


def _of_vectors(
    name: str, vectors: NDArray[np.float32]
) -> tuple[Feature | None, NDArray[np.float32]]:
    """Return the feature of vectors and the mean [w] of the unit vectors; their scale makes the
    features of a typical item a vector of length 1, as its text's is."""
    width = vectors.shape[1]
    none = np.zeros(width, np.float32)
    units = vector_features(vectors, none, 1.0).astype(np.float64)
    units = units[units.any(axis=1)]
    if not len(units):
        return None, none
    mean = units.mean(axis=0).astype(np.float32)
    scale = float(np.sqrt(((units - mean) ** 2).sum(axis=1).mean()))
    return (Feature(name, "vector", scale=scale, width=width) if scale > 1e-6 else None), mean


def frequent_values(values: Iterable[Any]) -> Counter[tuple[Any, type]]:
    """Return how many rows have each value of a category; what only one has says nothing of
    others."""
    arrays = attributes.make_column(values, attributes.CATEGORIES).arrays()  # type: ignore[union-attr]
    counts = np.bincount(arrays.codes, minlength=len(arrays.vocabulary))
    keys = map(attributes.key_of, arrays.vocabulary)
    found = Counter(dict(zip(keys, counts.tolist(), strict=True)))
    return Counter({key: count for key, count in found.most_common(MAX_VALUES) if count > 1})


def _most_frequent(
    counts: Mapping[str, Counter[tuple[Any, type]]],
) -> dict[str, tuple[Any, ...]]:
    """Return by attribute its values, of all together the `MAX_COLUMNS` most frequent."""
    pairs = [(name, key, count) for name, of in counts.items() for key, count in of.items()]
    kept = sorted(pairs, key=lambda pair: -pair[2])[:MAX_COLUMNS]
    chosen = {(name, key) for name, key, _ in kept}
    return {
        name: tuple(key[0] for key in of if (name, key) in chosen) for name, of in counts.items()
    }
