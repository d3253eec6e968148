"""Cases of slates: what is drawn for a user vector and a request, and its event."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np

from sanderling.arguments import check_caps, check_diversity, check_pins
from sanderling.bundle.manifest import Arm
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.boot_clock import BootClock
from sanderling.exploration import schemes
from sanderling.exploration.arms import plan_of
from sanderling.outbox.identity import Identity
from sanderling.ranking import boosts, rules
from sanderling.ranking.bundle_rules import rules_of
from sanderling.ranking.contexts import NO_CONTEXT
from sanderling.ranking.decision import DecisionRecord, RecommendRequest, decide
from sanderling.ranking.scorer import Scorer
from sanderling.users.event_factory import EventFactory
from sanderling.users.user_states import UserState
from tests.conformance.files import BUNDLES, USERS, CaseFile, packed
from tests.conformance.model_cases import ids_of, scorer_of, users_of
from tests.conformance.randoms import decision_id, pick, some, whole

INSTALL = "0123456789abcdef0123456789abcdef"
PSEUDONYM = "fedcba9876543210fedcba9876543210"
BOOT = "00112233445566778899aabbccddeeff"
WALL_MS = 1_750_000_000_000
MONO_MS = 5_000
CHECKSUM = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
STATE_EVENTS = 4
COMMON = {
    "install": INSTALL,
    "seq": 1,
    "user": PSEUDONYM,
    "clock": {"wall": WALL_MS, "mono": MONO_MS, "boot": BOOT},
    "state_checksum": CHECKSUM,
    "state_events": STATE_EVENTS,
}
"""What all events of the cases have in common."""

PROPENSITY_ERROR = 1e-12
Case = dict[str, Any]


class _FixedClock:
    """Shows `WALL_MS`, and that the boot began `MONO_MS` ago."""

    def __init__(self) -> None:
        self._readings = iter([0])

    def wall_ms(self) -> int:
        return WALL_MS

    def mono_ms(self) -> int:
        return next(self._readings, MONO_MS)


def event_factory() -> EventFactory:
    """Return the factory of the cases' events."""
    boot = BootClock(_FixedClock(), lambda size: bytes.fromhex(BOOT)[:size])
    return EventFactory(Identity(INSTALL, bytes(32)), boot, entropy=lambda size: bytes(size))


def decided(scorer: Scorer, case: Case, user: Any) -> DecisionRecord:
    """Return the decision of a case, made for a user vector [d]."""
    manifest = scorer.bundle.manifest
    arm = _arm(scorer, case)
    plan = plan_of(manifest, arm)
    plan = msgspec.structs.replace(plan, **case.get("plan", {}))
    if case.get("greedy"):
        plan = schemes.greedy(plan)
    request = rules_of(scorer).added_to(request_of(case["request"]))
    if arm is not None and not arm.personalized:
        user = np.zeros_like(user)
    record = decide(scorer, user, plan, request, case["decision"], PSEUDONYM)
    return record._replace(arm=arm)


def _arm(scorer: Scorer, case: Case) -> Arm | None:
    experiment = scorer.bundle.manifest.experiment
    arms = experiment.arms if experiment else ()
    return next((arm for arm in arms if arm.name == case.get("arm")), None)


def request_of(given: Case) -> RecommendRequest:
    """Return a request from the arguments of `Engine.recommend`; `after` holds the ids before."""
    k = given["k"]
    pins = {int(slot): item for slot, item in given.get("pin", {}).items()}
    return RecommendRequest(
        "user",
        k,
        NO_CONTEXT,
        tuple(given.get("exclude", ())),
        check_caps(given.get("at_most", {})),
        check_pins(pins, k),
        rules.parse(given["where"]) if "where" in given else None,
        tuple(given["among"]) if "among" in given else None,
        tuple(given.get("after", ())),
        check_diversity(given.get("diversity", 0.0)),
        boosts.parse(given.get("boost", ())),
    )


def event_of(
    record: DecisionRecord, checksum: str = CHECKSUM, events: int = STATE_EVENTS
) -> wire.Decision:
    """Return the decision's event; `checksum` and number of `events` are those of the state."""
    state = UserState(PSEUDONYM, record.scorer.space, record.vector, checksum, events, ())
    event = event_factory().decision(record, state, None, adapted=False).build()
    return msgspec.structs.replace(event, seq=COMMON["seq"])  # the outbox numbers events


def answer_of(record: DecisionRecord) -> Case:
    """Return what a port has to find: the slate, and the hash of its event."""
    items = record.slate.items
    answer: Case = {
        "items": [item.id for item in items],
        "scores": [item.score for item in items],
        "ranks": [item.rank for item in items],
        "explored": [int(item.explored) for item in items],
        "conditional": [item.propensity for item in items],
        "marginal": [item.marginal for item in items],
        "pool": len(record.ranking.rows),
        "eligible": record.slate.eligible,
    }
    if any(item.newcomer for item in items):
        answer["newcomer"] = [item.slot for item in items if item.newcomer]
    if any(item.pinned for item in items):
        answer["pinned"] = [item.slot for item in items if item.pinned]
    if record.slate.shortage:
        answer["shortage"] = record.slate.shortage
    if not items:
        return answer
    event = event_of(record)
    if event.pool_items and len(event.pool_items) <= 12:
        answer["pool_items"] = event.pool_items
    if record.plan.scheme != "softmax":  # whose last bits depend on exp and log of the language
        answer["event"] = _hash(event)
    return answer


def _hash(event: wire.Decision) -> str:
    """Return the hash of an event without marginals, whose last bits depend on the order of sums.

    The conditional probabilities have an order of arithmetic that languages can repeat.
    """
    slate = [msgspec.structs.replace(slot, marginal=None) for slot in event.slate]
    line = codec.encode(msgspec.structs.replace(event, slate=slate))
    return hashlib.blake2b(line, digest_size=8).hexdigest()


def sequential_cases() -> CaseFile:
    """Return slates of scheme `sequential` without newcomers and rules: the read path."""
    rng = Random(21)
    return _file(rng, 700, ["golden", "tiny", "shop"], plain_case, "Slates of scheme sequential.")


def scheme_cases() -> CaseFile:
    """Return slates of all schemes, with newcomers, guarded slots and arms."""
    about = "Slates of all schemes, with the quota for newcomers, guarded slots and arms."
    return _file(Random(22), 850, list(BUNDLES), _scheme_case, about)


def request_cases() -> CaseFile:
    """Return slates of requests with rules, boosts, caps, pins and diversity."""
    about = "Slates of requests with where, among, after, exclude, at_most, boost, pin, diversity."
    return _file(Random(23), 1050, ["shop", "shop", "shop", "ruled", "golden"], request_case, about)


def _file(
    rng: Random,
    count: int,
    bundles: list[str],
    make: Callable[[Random, str], Case],
    about: str,
) -> CaseFile:
    users = users_of(rng)
    cases = []
    for _ in range(count):
        bundle = pick(rng, bundles)
        scorer = scorer_of(bundle)
        user = whole(rng, 0, USERS - 1)
        case = {"bundle": bundle, "user": user, **make(rng, bundle), "decision": decision_id(rng)}
        record = decided(scorer, case, users[bundle][user])
        cases.append(case | {"slate": answer_of(record)})
    vectors = {bundle: list(map(packed, users[bundle])) for bundle in dict.fromkeys(bundles)}
    shared = {"bundles": BUNDLES, "common": COMMON, "users": vectors}
    tolerance = {"conditional": PROPENSITY_ERROR, "marginal": PROPENSITY_ERROR}
    return CaseFile(about, shared, cases, tolerance)


def plain_case(rng: Random, bundle: str) -> Case:
    """Return a request without rules, answered by scheme `sequential` without newcomers."""
    plan: Case = {"scheme": "sequential", "newcomers": 0.0}
    plan["epsilon"] = pick(rng, [0.0, 0.05, 0.2, 0.5, 1.0, rng.random()])
    plan["pool"] = whole(rng, 1, 40)
    request: Case = {"k": 1 if rng.random() < 0.1 else whole(rng, 2, 8)}
    if rng.random() < 0.3:
        request["exclude"] = some(rng, [*ids_of(bundle), "no such item"], whole(rng, 1, 3))
    return {"plan": plan, "request": request}


def _plan(rng: Random) -> Case:
    scheme = pick(rng, ["sequential", "mixture", "softmax"])
    plan: Case = {"scheme": scheme, "pool": whole(rng, 1, 30)}
    plan["epsilon"] = pick(rng, [0.0, 0.1, 0.3, 0.6, 1.0])
    plan["newcomers"] = pick(rng, [0.0, 0.3, 0.7, 1.0])
    if scheme == "softmax":
        plan["temperature"] = pick(rng, [0.1, 0.5, 1.0, 5.0, 1e-6])
    if rng.random() < 0.3:
        plan["guarded"] = whole(rng, 1, 4)
    return plan


def _scheme_case(rng: Random, bundle: str) -> Case:
    case: Case = {"plan": _plan(rng), "request": {"k": whole(rng, 1, 7)}}
    if rng.random() < 0.05:
        case["greedy"] = True
    if bundle == "ruled":
        case |= {"plan": {}, "arm": pick(rng, ["popular", "softer", "as-before", None])}
    return case


WHERES: list[Case] = [
    {"stock": {"gt": 0}},
    {"price": {"ge": 10, "lt": 50.5}},
    {"brand": "Acme"},
    {"brand": {"in": ["Müller", "日本堂", "none"]}},
    {"tags": {"any": ["jazz", "☂"]}},
    {"tags": {"all": ["jazz", "folk"]}},
    {"sale": True},
    {"sale": {"exists": False}},
    {"released": {"ge": "2025-01-01T10:00:00Z"}},
    {"mixed": {"in": [7, True]}},
    {"not": {"brand": "acme"}},
    {"or": [{"tags": "crime"}, {"stock": 4}, {"price": {"lt": 5}}]},
    {"and": [{"stock": {"le": 3}}, {"not": {"sale": True}}], "price": {"exists": True}},
    {},
    {"stock": 99},
]


def request_case(rng: Random, bundle: str) -> Case:
    """Return a request with random rules, and the plan by which it is answered."""
    ids = ids_of(bundle)
    request: Case = {"k": whole(rng, 1, 7)}
    if bundle != "golden":
        if rng.random() < 0.4:
            request["where"] = pick(rng, WHERES)
        if rng.random() < 0.3:
            count = whole(rng, 1, 2)
            caps = some(rng, ["brand", "tags", "mixed", "stock", "nothing"], count)
            request["at_most"] = {name: whole(rng, 1, 3) for name in caps}
        if rng.random() < 0.3:
            several = range(whole(rng, 1, 2))
            amounts = [0.25, -0.5, 1.5, 1e6, 0, -0.125]
            request["boost"] = [
                {"where": pick(rng, WHERES), "by": pick(rng, amounts)} for _ in several
            ]
    if rng.random() < 0.15:
        request["among"] = some(rng, [*ids, "no such item"], whole(rng, 0, 30))
    if rng.random() < 0.15:
        request["after"] = some(rng, ids, whole(rng, 1, 8))
    if rng.random() < 0.2:
        request["exclude"] = some(rng, [*ids, "no such item"], whole(rng, 1, 8))
    if rng.random() < 0.25:
        slots = some(rng, list(range(request["k"])), whole(rng, 1, 2))
        items = some(rng, ids, len(slots))
        request["pin"] = {str(slot): item for slot, item in zip(sorted(slots), items, strict=True)}
    if rng.random() < 0.2:
        request["diversity"] = pick(rng, [0.1, 0.5, 0.9, 1.0])
    return {"plan": _plan(rng) if rng.random() < 0.7 else {}, "request": request}
