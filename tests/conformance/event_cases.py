"""Cases of events: the exact bytes of lines of every type."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import UNSET

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Event
from tests.conformance.files import CaseFile, unpacked
from tests.conformance.model_cases import scorer_of
from tests.conformance.randoms import HOSTILE_TEXTS, any_text, hex_id, pick, whole
from tests.conformance.slate_cases import (
    decided,
    event_of,
    request_cases,
    scheme_cases,
    sequential_cases,
)

FLOATS = [1e-300, 1e-7, 9.999e-5, 1e-4, 0.1 + 0.2, 1 / 3, 0.5, 1.0, 0.9999999999999999]
"""Probabilities whose shortest decimal forms differ in style."""

BOOSTS = [0.0, -0.0, 1.0, -1e6, 1e9, 123456.789, 1e-5, 2.5e-7, 1e5, 100000000.5]
LONGEST = 512


def event_cases() -> CaseFile:
    """Return lines of events."""
    rng = Random(31)
    make: list[Callable[[Random], Event]] = [_decision, _outcome, _observation, _reset, _loss]
    cases: list[dict[str, Any]] = [{"line": _line(make[i % len(make)](rng))} for i in range(420)]
    for name, slates in (
        ("slates-sequential", sequential_cases()),
        ("slates-schemes", scheme_cases()),
        ("slates-requests", request_cases()),
    ):
        for place, case in enumerate(slates.cases[:30]):
            user = unpacked(slates.shared["users"][case["bundle"]][case["user"]])
            record = decided(scorer_of(case["bundle"]), case, user)
            if record.slate.items and record.plan.scheme != "softmax":
                line = _line(event_of(record))
                cases.append({"line": line, "file": name, "case": place})
    about = "Lines of events: decoded into typed values and encoded again they are the same bytes."
    return CaseFile(about, {}, cases)


def _line(event: Event) -> str:
    line = codec.encode(event)
    assert codec.encode(codec.decode(line)) == line
    return line.decode()


def _name(rng: Random) -> str:
    if rng.random() < 0.01:
        return "é" * LONGEST
    names = [text for text in HOSTILE_TEXTS if text]
    return pick(rng, [pick(rng, names), any_text(rng), "item-1"])[:LONGEST]


def _common(rng: Random) -> dict[str, Any]:
    clock = wire.ClockReading(whole(rng, -10, 2**50), whole(rng, 0, 10**9), hex_id(rng))
    common = {"id": hex_id(rng), "install": hex_id(rng), "seq": whole(rng, 1, 2**53)}
    return common | {"clock": clock, "user": hex_id(rng)}


def _probability(rng: Random) -> float:
    return pick(rng, [*FLOATS, rng.random() or 1.0])


def _slot(rng: Random, rank: int) -> wire.Slot:
    marginal = None if rng.random() < 0.2 else _probability(rng)
    mark = pick(rng, [UNSET, UNSET, True])
    is_explored = rng.random() < 0.5
    marks = {pick(rng, ["newcomer", "pinned"]): mark}
    return wire.Slot(_name(rng), rank, is_explored, _probability(rng), marginal, **marks)


def _decision(rng: Random) -> Event:
    optional: dict[str, Any] = {
        "context": "AACAPwAAAMA=",
        "pass_probability": 2.0 ** -whole(rng, 0, 30),
        "guarded": whole(rng, 1, 9),
        "temperature": pick(rng, [1e-6, 0.5, 1.0, 1e6]),
        "caps": {_name(rng): whole(rng, 0, 99), "brand": 1},
        "pool_items": [_name(rng) for _ in range(whole(rng, 1, 3))],
        "boosts": [pick(rng, BOOSTS) for _ in range(whole(rng, 0, 4))],
        "newcomers": whole(rng, 1, 10**6),
        "newcomer_rate": _probability(rng),
        "experiment": "autumn",
        "arm": "softer",
        "diversity": _probability(rng),
        "adapted": True,
    }
    return wire.Decision(
        **_common(rng),
        release=whole(rng, 0, 10**4),
        scheme=pick(rng, ["sequential", "mixture", "softmax"]),
        epsilon=pick(rng, [0.0, *FLOATS]),
        pool=whole(rng, 0, 10**4),
        eligible=whole(rng, 0, 2**40),
        slate=[_slot(rng, whole(rng, 0, 100)) for _ in range(whole(rng, 1, 3))],
        state_checksum=hex_id(rng),
        state_events=whole(rng, 0, 10**6),
        **{name: value for name, value in optional.items() if rng.random() < 0.3},
    )


def _outcome(rng: Random) -> Event:
    optional = {"flip_probability": pick(rng, [1e-9, 0.25, 0.4999]), "late": True}
    return wire.Outcome(
        **_common(rng),
        decision=hex_id(rng),
        slot=whole(rng, 0, 999),
        item=_name(rng),
        kind=_name(rng),
        value=pick(rng, [1.0, -1.0, 0.0, -0.0, 1e-20, -1 / 3, 2.0 * rng.random() - 1.0]),
        updates_state=rng.random() < 0.5,
        **{name: value for name, value in optional.items() if rng.random() < 0.3},
    )


def _observation(rng: Random) -> Event:
    return wire.Observation(**_common(rng), item=_name(rng), kind=_name(rng))


def _reset(rng: Random) -> Event:
    steps = [(_name(rng), _name(rng)) for _ in range(whole(rng, 1, 3))]
    return wire.StateReset(**_common(rng), steps=steps)


def _loss(rng: Random) -> Event:
    common = _common(rng)
    del common["user"]
    counts = {name: whole(rng, 0, 50) for name in ("decisions", "outcomes", "observations")}
    lost = {"lost_seqs": [whole(rng, 1, 2**53)]} if rng.random() < 0.5 else {}
    return wire.Loss(
        **common, reason=pick(rng, ["full", "forgotten", _name(rng)]), **counts, **lost
    )
