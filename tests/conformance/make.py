"""Writes the conformance set, tests/conformance/*.json: `python -m tests.conformance.make [NAME]`.

Python's own engine computes every answer, and the same inputs are drawn on every run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.conformance.bundle_cases import bundle_cases, manifest_cases
from tests.conformance.catalog_cases import catalog_cases
from tests.conformance.event_cases import event_cases
from tests.conformance.feature_cases import feature_cases
from tests.conformance.files import FOLDER, CaseFile, dump
from tests.conformance.hash_cases import hash_cases, philox_cases, uniform_cases
from tests.conformance.model_cases import search_cases, state_cases
from tests.conformance.path_cases import path_cases
from tests.conformance.reason_cases import reason_cases
from tests.conformance.rule_cases import rule_cases
from tests.conformance.slate_cases import request_cases, scheme_cases, sequential_cases
from tests.conformance.text_cases import find_cases, token_cases, word_cases

FILES: dict[str, Callable[[], CaseFile]] = {
    "philox": philox_cases,
    "uniforms": uniform_cases,
    "hashes": hash_cases,
    "states": state_cases,
    "search": search_cases,
    "slates-sequential": sequential_cases,
    "slates-schemes": scheme_cases,
    "slates-requests": request_cases,
    "slates-catalog": catalog_cases,
    "read-path": path_cases,
    "events": event_cases,
    "rules": rule_cases,
    "tokens": token_cases,
    "words": word_cases,
    "find": find_cases,
    "reasons": reason_cases,
    "features": feature_cases,
    "manifests": manifest_cases,
    "bundles": bundle_cases,
}
"""By name what makes each file."""


if __name__ == "__main__":
    total = 0
    for name in sys.argv[1:] or FILES:
        file = FILES[name]()
        text = dump(file)
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
        total += len(file.cases)
        print(f"{name}: {len(file.cases)} cases, {len(text.encode()):,} bytes")
    print(f"{total} cases")
