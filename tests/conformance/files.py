"""The files of the conformance set: how they are written, read and compared (docs/PORTING.md)."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
FORMAT = 1

BUNDLES = {
    "golden": "tests/golden/bundle-1",
    "tiny": "engine/sanderling/cli/tiny_bundle",
    "shop": "tests/conformance/bundles/shop",
    "ruled": "tests/conformance/bundles/ruled",
}
"""The bundles that cases name, as folders of the repository."""

ROOT = FOLDER.parents[1]
USERS = 32
"""User vectors of each bundle that cases share."""


class CaseFile(NamedTuple):
    """One file of cases."""

    about: str
    """What the cases are about, one sentence."""

    shared: dict[str, Any]
    """What several cases refer to, by name."""

    cases: list[dict[str, Any]]

    tolerance: Mapping[str, float] = {}
    """By the name of a field how much its numbers may differ; all others are equal bit for bit."""


def dump(file: CaseFile) -> str:
    """Return the text of a file: the header, then a case a line."""
    head = {"format": FORMAT, "about": file.about, "tolerance": file.tolerance, **file.shared}
    lines = [f"{_json(name)}:{_json(value)},\n" for name, value in head.items()]
    cases = ",\n".join(map(_json, file.cases))
    return "{" + "".join(lines) + f'"cases":[\n{cases}\n]}}\n'


def _json(value: Any) -> str:
    # Lone surrogates have no UTF-8: then everything of the value is escaped.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if any("\ud800" <= character <= "\udfff" for character in text):
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text


def load(name: str) -> dict[str, Any]:
    """Return what a committed file holds."""
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return read


def packed(numbers: NDArray[Any]) -> str:
    """Return float32 numbers as the base64 of their little-endian bytes."""
    return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """Return the float32 numbers of `packed`."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


def differences(
    expected: Any, found: Any, tolerance: Mapping[str, float], path: str = "", field: str = ""
) -> Iterator[str]:
    """Yield where what was found is not what was expected, within tolerances by field."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in expected.keys() | found.keys():
            pair = expected.get(name, "absent"), found.get(name, "absent")
            yield from differences(*pair, tolerance, f"{path}.{name}", name)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, tolerance, f"{path}[{i}]", field)
    elif field in tolerance and isinstance(expected, str) and isinstance(found, str):
        pair = unpacked(expected), unpacked(found)
        if not np.allclose(*pair, rtol=0.0, atol=tolerance[field], equal_nan=True):
            yield f"{path}: vectors differ by {np.abs(pair[0] - pair[1]).max()}"
    elif field in tolerance and _are_numbers(expected, found):
        if not math.isclose(expected, found, rel_tol=0.0, abs_tol=tolerance[field]):
            yield f"{path}: expected {expected!r}, found {found!r}"
    elif type(expected) is not type(found) or expected != found:
        yield f"{path}: expected {expected!r:.200}, found {found!r:.200}"


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def first_differences(expected: Any, found: Any, tolerance: Mapping[str, float]) -> list[str]:
    """Return the first ten differences."""
    every: Iterable[str] = differences(expected, found, tolerance)
    return [difference for difference, _ in zip(every, range(10), strict=False)]
