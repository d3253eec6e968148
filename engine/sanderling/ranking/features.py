"""Typed attributes as features, which a policy projects into the space of item and user vectors.

With ψ the features of an item or a context, F of them, a policy adds B ψ to its vector. A missing
or unknown value has the feature 0. docs/MATH.md, "Features".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.features import CATEGORIES, Feature, FeatureSchema, FeatureTensors
from sanderling.ranking import attributes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Columns = Mapping[str, Any]
"""By attribute its value in each row, None where it is missing; vectors may be an array [n, w] with
rows of NaN."""

LIMIT = 5.0
"""The largest feature of a number: a wrong one must not decide alone."""


@dataclass(frozen=True)
class Features:
    """The features of n rows: the first ones as an array, those of categories as entries."""

    dense: Floats
    """[n, D]"""

    rows: Ints
    """[e], ascending: the row of each entry."""

    columns: Ints
    """[e], from D to F - 1."""

    weights: Floats
    """[e]: the feature of this row and column; those of no entry are 0."""

    def matrix(self, columns: int) -> Floats:
        """Return ψ float32 [n, F] of each row, given F."""
        found = np.zeros((len(self.dense), columns), np.float32)
        found[:, : self.dense.shape[1]] = self.dense
        found[self.rows, self.columns] = self.weights
        return found


class FeatureMap:
    """The features of a schema. `mean` is that of `FeatureTensors`."""

    def __init__(self, schema: FeatureSchema, mean: Floats) -> None:
        self.schema = schema
        self.mean = mean
        self._code_of = {
            feature.name: {attributes.key_of(value): i for i, value in enumerate(feature.values)}
            for feature in schema.features
            if feature.type in CATEGORIES
        }

    @classmethod
    def of(cls, tensors: FeatureTensors) -> FeatureMap:
        """Return the map of a policy's tensors."""
        return cls(tensors.schema, tensors.mean)

    def features(self, columns: Columns, n: int) -> Features:
        """Return the features of n rows; an attribute without a column is missing in all."""
        dense = np.zeros((n, self.schema.dense), np.float32)
        entries: list[tuple[Ints, Ints, Floats]] = []
        start = 0
        of_vectors = 0
        for feature in self.schema.features:
            stop = start + feature.columns
            values = columns.get(feature.name)
            if values is None:
                pass
            elif feature.type in CATEGORIES:
                rows, codes, weights = self._entries(feature, values)
                entries.append((rows, codes + start, weights))
            elif feature.type == "vector":
                mean = self.mean[of_vectors : of_vectors + feature.width]
                dense[:, start:stop] = vector_features(values, mean, feature.scale)
            else:
                dense[:, start] = number_features(values, feature)
            of_vectors += feature.columns if feature.type == "vector" else 0
            start = stop
        return _with_entries(dense, entries)

    def features_of(self, records: Sequence[Mapping[str, Any]]) -> Floats:
        """Return the features [r, F] of records, given their values by name."""
        names = [feature.name for feature in self.schema.features]
        columns = {name: [record.get(name) for record in records] for name in names}
        return self.features(columns, len(records)).matrix(self.schema.columns)

    def _entries(self, feature: Feature, values: Sequence[Any]) -> tuple[Ints, Ints, Floats]:
        """Return rows, codes and weights of a row's known values: 1 / √count, so that many values
        move a vector no further than one."""
        column = attributes.make_column(values, attributes.CATEGORIES)
        assert isinstance(column, attributes.CategoryColumn)
        arrays = column.arrays()
        code_of = self._code_of[feature.name]
        known = [code_of.get(attributes.key_of(value), -1) for value in arrays.vocabulary]
        codes = np.array(known, np.int64)[arrays.codes] if known else np.empty(0, np.int64)
        is_known = codes >= 0
        rows = arrays.rows[is_known].astype(np.int64)
        counts = np.bincount(rows, minlength=len(values))
        return rows, codes[is_known], (counts[rows] ** -0.5).astype(np.float32)


def number_features(values: Sequence[Any], feature: Feature) -> Floats:
    """Return the features float32 [n] of numbers, times or booleans, 0 where missing."""
    column = attributes.make_column(values, feature.type)
    assert isinstance(column, attributes.ScalarColumn)
    with np.errstate(over="ignore", invalid="ignore"):
        units = (column.numbers - feature.centre) / feature.scale
        units = np.arcsinh(units) if feature.is_heavy_tailed else units
    return np.nan_to_num(np.clip(units, -LIMIT, LIMIT), nan=0.0).astype(np.float32)


def vector_features(values: Sequence[Any] | Floats, mean: Floats, scale: float) -> Floats:
    """Return the features float32 [n, w] of vectors: unit vectors less their mean, divided by a
    scale; 0 where missing, of another width, not finite or 0."""
    given = values if isinstance(values, np.ndarray) else as_vectors(values, len(mean))
    numbers = given.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # Divided twice, since the squares of large numbers overflow.
        numbers = numbers / np.abs(numbers).max(axis=1, keepdims=True, initial=0.0)
        numbers = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    units = (numbers - mean) / scale
    units[~np.isfinite(units).all(axis=1)] = 0.0
    return units.astype(np.float32)


def as_vectors(values: Sequence[Any], width: int) -> Floats:
    """Return vectors float32 [n, w], NaN where a value is none of this width."""
    vectors = np.full((len(values), width), np.nan, np.float32)
    for row, value in enumerate(values):
        if vector_fault(value, width) is None:
            vectors[row] = value
    return vectors


def vector_fault(value: Any, width: int | None) -> str | None:
    """Return what is expected in place of a value that is no vector of a width, None for any."""
    is_vector = isinstance(value, list) and (width is None or len(value) == width)
    if is_vector and set(map(type, value)) <= {int, float}:
        return None
    return "a list of numbers" if width is None else f"a list of {width} numbers"


def _with_entries(dense: Floats, entries: Sequence[tuple[Ints, Ints, Floats]]) -> Features:
    rows = np.concatenate([np.empty(0, np.int64), *(part[0] for part in entries)])
    columns = np.concatenate([np.empty(0, np.int64), *(part[1] for part in entries)])
    weights = np.concatenate([np.empty(0, np.float32), *(part[2] for part in entries)])
    order = np.argsort(rows, kind="stable")
    return Features(dense, rows[order], columns[order], weights[order])
