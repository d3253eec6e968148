"""The tensors of policy.safetensors that say how typed attributes become numbers, and what these
add to a vector.

`item.features` describes attributes of items, `context.features` those of a request's context.
docs/BUNDLE.md describes the tensors, docs/MATH.md the features; both are optional.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.columns import MAX_ATTRIBUTES, AttributeType
from sanderling.bundle.tensors import Tensors, expect
from sanderling.errors import BundleError

FILE = "policy.safetensors"
ITEM = "item"
CONTEXT = "context"
CATEGORIES = ("category", "categories")


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one attribute becomes numbers."""

    name: str
    type: AttributeType

    centre: float = 0.0
    """Of numbers, times and booleans: what counts as 0."""

    scale: float = 1.0
    """Of numbers, times and booleans: what is one unit away from the centre."""

    is_heavy_tailed: bool = False
    """Whether units are compressed by asinh, as those of prices are."""

    values: tuple[str | float | int | bool, ...] = ()
    """Of categories: the values that have a column of their own; all others count as missing."""

    width: int = 0
    """Of vectors: how many numbers they have."""

    @property
    def columns(self) -> int:
        """How many features it becomes."""
        if self.type in CATEGORIES:
            return len(self.values)
        return self.width if self.type == "vector" else 1

    def fault(self) -> str | None:
        """Return what is wrong with the description, None where nothing is."""
        if self.type == "text":
            return "expected a type that has features, found text"
        if not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0.0):
            return (
                f"expected a finite centre and a positive scale, found {self.centre}, {self.scale}"
            )
        if self.columns < 1:
            return "expected at least one value, or a width of at least 1"
        return None


class FeatureSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The features of a policy, in the order of their columns: those of categories come last."""

    features: tuple[Feature, ...] = ()

    texts: tuple[str, ...] = ()
    """The attributes whose words the encoder reads after an item's text, in this order."""

    @property
    def dense(self) -> int:
        """How many columns come before those of categories."""
        return sum(each.columns for each in self.features if each.type not in CATEGORIES)

    @property
    def columns(self) -> int:
        """F, how many columns there are."""
        return sum(each.columns for each in self.features)

    @property
    def vector_columns(self) -> int:
        """V, how many of the columns are of vectors."""
        return sum(each.columns for each in self.features if each.type == "vector")


@dataclass(frozen=True)
class FeatureTensors:
    """What policy.safetensors has of items' attributes or of contexts."""

    schema: FeatureSchema

    project: NDArray[np.float32]
    """[d, F]: what one unit of each feature adds to the vector."""

    mean: NDArray[np.float32]
    """[V]: the mean of the unit vectors of each attribute of type `vector`, one after the other."""

    def without_texts(self) -> FeatureTensors:
        """Return them for items whose texts have the words of attributes already."""
        return replace(self, schema=msgspec.structs.replace(self.schema, texts=()))

    def tensors(self, of: str) -> Tensors:
        """Return them under the names of the file, of `item` or `context`."""
        return {
            f"{of}.features": _as_bytes(self.schema),
            f"{of}.feature_project": np.ascontiguousarray(self.project),
            f"{of}.feature_mean": np.ascontiguousarray(self.mean),
        }

    @classmethod
    def of(cls, tensors: Tensors, of: str, dim: int) -> FeatureTensors | None:
        """Return those of `item` or `context`, with vectors of dimension d; None where there are
        none. Raises `BundleError` for malformed ones."""
        text = tensors.get(f"{of}.features")
        if text is None:
            return None
        name = f"{FILE}: {of}.features"
        try:
            schema = msgspec.json.decode(text.tobytes(), type=FeatureSchema)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(f"{name}: {error}") from error
        _check(name, schema.features)
        if of == CONTEXT and schema.vector_columns:
            raise BundleError(f"{name}: expected no vectors, which only items have")
        project = expect(tensors, FILE, f"{of}.feature_project", np.float32, (dim, schema.columns))
        mean = expect(tensors, FILE, f"{of}.feature_mean", np.float32, (schema.vector_columns,))
        return cls(schema, project, mean)


def _check(name: str, features: Sequence[Feature]) -> None:
    names = {feature.name for feature in features}
    if len(names) != len(features) or len(features) > MAX_ATTRIBUTES:
        raise BundleError(
            f"{name}: expected at most {MAX_ATTRIBUTES} attributes of different names, found"
            f" {len(features)}"
        )
    for feature in features:
        fault = feature.fault()
        if fault:
            raise BundleError(f"{name}: {feature.name:.80}: {fault}")
    is_category = [feature.type in CATEGORIES for feature in features]
    if is_category != sorted(is_category):
        raise BundleError(f"{name}: expected categories behind all other features")


def _as_bytes(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(msgspec.json.encode(value), np.uint8)
