"""Cases of states, user vectors and exact top-k."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np

from sanderling.bundle.reader import Bundle
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.search_types import RowMask
from tests.conformance.files import BUNDLES, ROOT, USERS, CaseFile, packed
from tests.conformance.make_bundles import TWINS
from tests.conformance.randoms import pick, some, unit_vector, vector, whole


@cache
def scorer_of(bundle: str) -> Scorer:
    """Return the scorer of a bundle of `files.BUNDLES`."""
    return Scorer(Bundle.open(ROOT / BUNDLES[bundle], verify=True))


@cache
def ids_of(bundle: str) -> tuple[str, ...]:
    """Return the ids of a bundle's items, by row."""
    return tuple(scorer_of(bundle).bundle.ids())


def state_cases() -> CaseFile:
    """Return what events make of a user's state, and the user vectors of it."""
    rng = Random(11)
    cases = []
    for i in range(900):
        bundle = pick(rng, list(BUNDLES))
        sizes = scorer_of(bundle).bundle.manifest.sizes
        count = 0 if i < 4 else 60 if i == 4 else whole(rng, 1, 6)
        events = [any_event(rng, bundle) for _ in range(count)]
        context = unit_vector(rng, sizes.text) if rng.random() < 0.3 else None
        case: dict[str, Any] = {"bundle": bundle, "events": events}
        if context is not None:
            case["context"] = packed(context)
        cases.append(case | _state(bundle, events, context))
    about = "Events (item, kind) to a user's state [c], its checksum, and the user vector [d]."
    return CaseFile(about, {"bundles": BUNDLES}, cases)


def any_event(rng: Random, bundle: str) -> tuple[str, str]:
    """Return an item id and a kind, some of them unknown."""
    kinds = [*scorer_of(bundle).bundle.manifest.kinds, "unheard of"]
    item = "no such item" if rng.random() < 0.1 else pick(rng, ids_of(bundle))
    return item, pick(rng, kinds)


def replayed(bundle: str, events: list[tuple[str, str]]) -> tuple[Vector, str]:
    """Return the state [c] that events make, and its checksum."""
    scorer = scorer_of(bundle)
    state = scorer.user_model.initial_state()
    checksum = NO_EVENTS
    for item, kind in events:
        row = scorer.find(item)
        checksum = next_checksum(checksum, item, kind)
        if row is not None:
            state = scorer.user_model.step(state, scorer.vector(row), kind)
    return state, checksum


def _state(bundle: str, events: list[tuple[str, str]], context: Vector | None) -> dict[str, Any]:
    state, checksum = replayed(bundle, events)
    user = scorer_of(bundle).user_model.user_vector(state, context)
    return {"checksum": checksum, "state": packed(state), "user": packed(user)}


def users_of(rng: Random) -> dict[str, list[Vector]]:
    """Return the user vectors of each bundle that cases share."""
    users = {}
    for bundle in BUNDLES:
        dim = scorer_of(bundle).bundle.manifest.sizes.dim
        magnitudes = [pick(rng, [0.01, 0.3, 1.0, 3.0]) for _ in range(USERS)]
        users[bundle] = [vector(rng, dim, magnitude) for magnitude in magnitudes]

    # Every fourth one likes those items best that have equal scores.
    for place in range(0, USERS, 4):
        users["shop"][place] = scorer_of("shop").vector(TWINS.start) * np.float32(place + 1)
    return users


def search_cases() -> CaseFile:
    """Return the best rows for user vectors, some of them extreme."""
    rng = Random(12)
    cases = [
        {"bundle": bundle, "user": packed(user), "k": k} | _search(bundle, user, k, [], [])
        for bundle in BUNDLES
        for user in _extreme_vectors(rng, scorer_of(bundle).bundle.manifest.sizes.dim)
        for k in (2, 20)
    ]
    users = users_of(rng)
    for _ in range(1000):
        bundle = pick(rng, list(BUNDLES))
        sizes = scorer_of(bundle).bundle.manifest.sizes
        user = pick(rng, users[bundle])
        k = whole(rng, 1, 8)
        rows = list(range(sizes.items))
        excluded = some(rng, [*rows, -1, sizes.items], whole(rng, 0, 6))
        hidden = sorted(some(rng, rows, whole(rng, 0, 20))) if rng.random() < 0.2 else []
        case: dict[str, Any] = {"bundle": bundle, "user": packed(user), "k": k}
        case |= {"excluded": excluded} if excluded else {}
        case |= {"hidden": hidden} if hidden else {}
        cases.append(case | _search(bundle, user, k, excluded, hidden))
    about = "A user vector [d] to the k best rows and their scores, of those that may be found."
    return CaseFile(about, {"bundles": BUNDLES}, cases)


def _extreme_vectors(rng: Random, dim: int) -> list[Vector]:
    """Return vectors at the limits of the rounding to integers."""
    usual = vector(rng, dim)
    one = np.zeros(dim, np.float32)
    one[dim // 2] = -3.0
    halves = np.full(dim, 0.5, np.float32)
    halves[0] = 8388607.0  # then the step is 1, and the others lie between two integers
    with_nan = usual.copy()
    with_nan[1] = np.nan
    magnitudes = [1e-13, 1e-11, 1e11, 1e13]
    huge = np.full(dim, np.inf, np.float32)
    scaled = [(usual * np.float32(magnitude)).astype(np.float32) for magnitude in magnitudes]
    return [np.zeros(dim, np.float32), one, halves, with_nan, huge, *scaled]


def _search(
    bundle: str, user: Vector, k: int, excluded: list[int], hidden: list[int]
) -> dict[str, Any]:
    scorer = scorer_of(bundle)
    mask = None
    if hidden:
        is_hidden = np.zeros(scorer.bundle.manifest.sizes.items, np.bool_)
        is_hidden[hidden] = True
        mask = RowMask(is_hidden)
    found = scorer.index.top(user, k, np.array(excluded, np.int64), mask)
    rows, scores = found.rows.tolist(), found.scores.tolist()
    return {"rows": rows, "scores": scores, "eligible": found.eligible}
