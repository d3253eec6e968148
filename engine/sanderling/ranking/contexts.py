"""What a request says of the user's situation, as one vector: the text's, then the features of
declared names such as hour, weekday, place or device.

In bundles without context features it is the text's vector alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.features import CATEGORIES, Feature
from sanderling.errors import shown
from sanderling.ranking.attributes import empty_column
from sanderling.ranking.features import FeatureMap

Vector = NDArray[np.float32]
TEXT = "text"
"""The name of the text in a mapping."""


class Context(NamedTuple):
    """The context of a request, as the app gave it."""

    text: str | None = None
    values: Mapping[str, Any] = {}
    """By name of a feature its value; None for a missing one."""

    def __bool__(self) -> bool:
        return bool(self.text or self.values)


NO_CONTEXT = Context()


def context_vector(
    context: Context, features: FeatureMap | None, encode: Callable[[str], Vector | None], t: int
) -> Vector | None:
    """Return the vector [t + F] of a context, given what encodes its text, [t]; None where it says
    nothing that the release knows."""
    text = encode(context.text) if context.text else None
    if features is None:
        return text
    of_features = features.features_of([context.values])[0]
    if text is None and not of_features.any():
        return None
    return np.concatenate([np.zeros(t, np.float32) if text is None else text, of_features])


def with_text(context: Vector, text: Vector | None, t: int) -> Vector:
    """Return a context's vector with another text's vector [t], None for no text."""
    return np.concatenate([np.zeros(t, np.float32) if text is None else text, context[t:]])


def check_values(context: Context, features: FeatureMap | None) -> None:
    """Raise `TypeError` for a value of another type than its declared feature's.

    Names that the release does not know are ignored: an app and its releases change apart.
    """
    if features is None:
        return
    for feature in features.schema.features:
        value = context.values.get(feature.name)
        expected = None if value is None else _fault(feature, value)
        if expected is not None:
            raise TypeError(
                f"context: {feature.name:.80}: expected {expected}, found {shown(value)}"
            )


def _fault(feature: Feature, value: Any) -> str | None:
    if feature.type in CATEGORIES:
        elements = value if isinstance(value, list) else [value]
        if feature.type == "category" and isinstance(value, list):
            return "one text, number or boolean"
        is_fine = all(isinstance(each, str | int | float) for each in elements)
        return None if is_fine else "texts, numbers or booleans"
    return empty_column(feature.type, 0).fault(value)
