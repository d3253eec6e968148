"""Features of typed attributes, one item and one value at a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from sanderling.bundle.features import Feature, FeatureSchema


def naive_features(schema: FeatureSchema, mean: list[float], record: dict[str, Any]) -> list[float]:
    """Return the features [F] of one record; `mean` are those of the vectors."""
    features: list[float] = []
    mean = list(mean)
    for feature in schema.features:
        value = record.get(feature.name)
        if feature.type in ("category", "categories"):
            features += _of_categories(feature, value)
        elif feature.type == "vector":
            own, mean = mean[: feature.width], mean[feature.width :]
            features += _of_vector(feature, own, value)
        else:
            features.append(_of_number(feature, value))
    return features


def _of_number(feature: Feature, value: Any) -> float:
    if feature.type == "boolean":
        number = float(value) if isinstance(value, bool) else math.nan
    elif isinstance(value, bool):
        number = math.nan
    elif isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
    elif feature.type == "time" and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        number = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    else:
        number = math.nan
    units = (number - feature.centre) / feature.scale
    if math.isnan(units):
        return 0.0
    if feature.is_heavy_tailed:
        units = math.asinh(units)
    return max(-5.0, min(5.0, units))


def _of_categories(feature: Feature, value: Any) -> list[float]:
    given = value if isinstance(value, list) else [value]
    found = [any(_same(each, known) for each in given) for known in feature.values]
    return [is_there / math.sqrt(sum(found)) if is_there else 0.0 for is_there in found]


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _of_vector(feature: Feature, mean: list[float], value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != feature.width or not any(value):
        return [0.0] * feature.width
    length = math.sqrt(sum(each * each for each in value))
    return [
        (each / length - centre) / feature.scale for each, centre in zip(value, mean, strict=True)
    ]
