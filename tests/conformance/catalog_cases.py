"""Cases of slates from a catalog that the app changed: items added, replaced, removed, changed."""

from __future__ import annotations

import hashlib
from functools import cache
from random import Random
from typing import Any

import numpy as np

from sanderling.bundle.reader import Bundle
from sanderling.ranking.scorer import Scorer
from tests.conformance.files import BUNDLES, ROOT, USERS, CaseFile, packed
from tests.conformance.model_cases import users_of
from tests.conformance.randoms import decision_id, pick, some, whole
from tests.conformance.rule_cases import CHANGES, changed
from tests.conformance.slate_cases import (
    COMMON,
    PROPENSITY_ERROR,
    answer_of,
    decided,
    request_case,
)

PLACES = {"blue camping tent": 3, "jazz album 20": 0, "film": 15, "coffee": 7}
"""Of the text of each added item, the number of its vector that is 1; all others are 0.

With these the projection of a text is a column of a matrix, whatever the order of sums.
"""


def catalog_cases() -> CaseFile:
    """Return slates of `shop+`."""
    rng = Random(25)
    scorer = _scorer()
    users = users_of(rng)["shop"]
    cases = []
    for _ in range(250):
        user = whole(rng, 0, USERS - 1)
        case: dict[str, Any] = {"bundle": "shop", "user": user, **request_case(rng, "shop")}
        request = case["request"]
        if rng.random() < 0.3:
            request["among"] = some(rng, ["new-1", "new-2", "new-3", "item-4", "item-20"], 3)
        if rng.random() < 0.2:
            request["exclude"] = some(rng, ["new-1", "new-2", "item-0"], 2)
        if rng.random() < 0.2:
            request["pin"] = {"0": pick(rng, ["new-1", "item-20", "item-4", "new-3"])}
        case["decision"] = decision_id(rng)
        cases.append(case | {"slate": answer_of(decided(scorer, case, users[user]))})
    texts = {text: packed(_vector(place)) for text, place in PLACES.items()}
    shared = {
        "bundles": BUNDLES,
        "common": COMMON,
        "catalog": CHANGES,
        "texts": texts,
        "users": {"shop": list(map(packed, users))},
    }
    tolerance = {"conditional": PROPENSITY_ERROR, "marginal": PROPENSITY_ERROR}
    return CaseFile("Slates from a changed catalog.", shared, cases, tolerance)


@cache
def _scorer() -> Scorer:
    """Return a scorer of the changed catalog, whose encoder knows the texts already."""
    scorer = Scorer(Bundle.open(ROOT / BUNDLES["shop"]))
    for text, place in PLACES.items():
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        scorer.encoder.cache[key] = _vector(place)
    return changed(scorer)


def _vector(place: int) -> Any:
    vector = np.zeros(16, np.float32)
    vector[place] = 1.0
    return vector
