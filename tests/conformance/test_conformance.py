"""The committed conformance set is what Python computes today."""

from __future__ import annotations

import json

import pytest

from tests.conformance.files import FOLDER, dump, first_differences, load
from tests.conformance.make import FILES

MAX_BYTES = 4_200_000
LEAST_CASES = 10_000


@pytest.mark.parametrize("name", FILES)
def test_python_computes_what_the_file_says(name):
    """Each file's cases are drawn and answered anew: inputs are equal, answers within its
    tolerance."""
    committed = load(name)
    computed = json.loads(dump(FILES[name]()))
    found = first_differences(committed, computed, committed["tolerance"])
    assert not found, f"{name}.json: run `python -m tests.conformance.make {name}`, or: {found}"


def test_the_set_is_large_in_cases_and_small_in_bytes():
    """All files together have at least 10,000 cases and at most 4.2 MB, and none is forgotten."""
    paths = sorted(FOLDER.glob("*.json"))
    assert [path.stem for path in paths] == sorted(FILES)
    assert sum(path.stat().st_size for path in paths) <= MAX_BYTES
    assert sum(len(load(path.stem)["cases"]) for path in paths) >= LEAST_CASES
