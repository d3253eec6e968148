"""Cases of the whole read path: from a user's events to the bytes of the decision."""

from __future__ import annotations

from random import Random
from typing import Any

from sanderling.events import codec
from tests.conformance.files import BUNDLES, CaseFile
from tests.conformance.model_cases import any_event, replayed, scorer_of
from tests.conformance.randoms import decision_id, pick, whole
from tests.conformance.slate_cases import COMMON, decided, event_of, plain_case

MAX_SLOTS = 7
"""Marginals are sums of as many terms as slots; numpy adds more of them in another order."""


def path_cases() -> CaseFile:
    """Return decisions for users with events, as lines."""
    rng = Random(24)
    cases = []
    for _ in range(150):
        bundle = pick(rng, ["golden", "tiny", "shop"])
        events = [any_event(rng, bundle) for _ in range(whole(rng, 0, 6))]
        case: dict[str, Any] = {"bundle": bundle, "events": events, **plain_case(rng, bundle)}
        case["request"]["k"] = min(case["request"]["k"], MAX_SLOTS)
        case["decision"] = decision_id(rng)
        state, checksum = replayed(bundle, events)
        record = decided(scorer_of(bundle), case, scorer_of(bundle).user_model.user_vector(state))
        line = codec.encode(event_of(record, checksum, len(events)))
        cases.append(case | {"line": line.decode()})
    common = {name: COMMON[name] for name in ("install", "seq", "user", "clock")}
    about = "Events of a user and a request to the line of the decision, every byte of it."
    return CaseFile(about, {"bundles": BUNDLES, "common": common}, cases)
