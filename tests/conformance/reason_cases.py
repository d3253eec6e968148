"""Cases of reasons: why a slate shows an item, and what it would show without exploration."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from sanderling.ranking.decision import explain
from sanderling.ranking.reasons import DecisionInputs, explain_item
from sanderling.ranking.reasons_history import UserHistory
from tests.conformance.files import BUNDLES, CaseFile
from tests.conformance.model_cases import ids_of, replayed, scorer_of
from tests.conformance.randoms import decision_id, pick, some, whole
from tests.conformance.slate_cases import WHERES, decided

MEAN_ERROR = 1e-12
"""How much a mean of biases may differ: the order of its sum is open."""


def reason_cases() -> CaseFile:
    """Return why slates of users with events show their items."""
    rng = Random(71)
    cases = []
    for _ in range(110):
        bundle = pick(rng, ["golden", "tiny", "tiny", "shop"])
        scorer = scorer_of(bundle)
        kinds = scorer.bundle.manifest.kinds
        steps = [(item, pick(rng, kinds)) for item in some(rng, ids_of(bundle), whole(rng, 0, 5))]
        request: dict[str, Any] = {"k": whole(rng, 1, 5)}
        if bundle == "shop" and rng.random() < 0.5:
            request["where"] = pick(rng, WHERES[:8])
        if bundle == "shop" and rng.random() < 0.3:
            request["boost"] = [{"where": {"sale": True}, "by": 0.5}]
        case: dict[str, Any] = {"bundle": bundle, "events": steps, "request": request}
        case["decision"] = decision_id(rng)
        answer = _answer(case, rng)
        if answer:
            cases.append(case | answer)
    about = "Why a slot of a slate after events shows its item, and the slate without exploration."
    tolerance = {"above_mean": MEAN_ERROR, "propensity": 1e-12, "marginal": 1e-12}
    return CaseFile(about, {"bundles": BUNDLES}, cases, tolerance)


def _answer(case: dict[str, Any], rng: Random) -> dict[str, Any]:
    scorer = scorer_of(case["bundle"])
    state, _ = replayed(case["bundle"], case["events"])
    record = decided(scorer, case, scorer.user_model.user_vector(state))
    if not record.slate.items:
        return {}
    history = UserHistory(state, tuple(case["events"]), len(case["events"]))
    shown = pick(rng, record.slate.items)
    reasons = explain_item(DecisionInputs(record, history, None), shown.id)
    explanation = explain(record)
    assert explanation.is_identical
    answer = msgspec.to_builtins(reasons)
    for name in ("decision", "words", "context_effect", "learned_effect"):
        del answer[name]
    return {"slot": shown.slot, "greedy": list(explanation.greedy), "reasons": answer}
