"""Fakes for tests: a clock that is set by hand, entropy from a seed, events, and a transport."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Event, Observation, Outcome, Slot
from sanderling.upload.transport import Response


class FakeClock:
    def __init__(self, wall_ms: int = 1_750_000_000_000, mono_ms: int = 5_000) -> None:
        self.wall = wall_ms
        self.mono = mono_ms

    def wall_ms(self) -> int:
        return max(0, self.wall)

    def mono_ms(self) -> int:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.mono += round(seconds * 1000)


class FakeEntropy:
    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)

    def __call__(self, size: int) -> bytes:
        return self.rng.randbytes(size)


class EventFactory:
    """Makes events of one install; ids count upwards, so that failing tests show readable ids."""

    def __init__(self, install: str = "a" * 32, start: int = 1) -> None:
        self.install = install
        self.ids = itertools.count(start)

    def common(self, fields: dict[str, Any]) -> dict[str, Any]:
        clock = wire.ClockReading(1_750_000_000_000, 5_000, "b" * 32)
        base = {
            "id": f"{next(self.ids):032x}",
            "install": self.install,
            "seq": 0,
            "user": "c" * 32,
            "clock": clock,
        }
        return base | fields

    def decision(self, **fields: Any) -> Decision:
        slate = [Slot("red", 0, False, 0.9, 0.9), Slot("blue", 3, True, 0.05, 0.04)]
        base = {
            "release": 3, "scheme": "sequential", "epsilon": 0.1, "pool": 50, "eligible": 200,
            "slate": slate, "state_checksum": "d" * 32, "state_events": 4,
        }  # fmt: skip
        return Decision(**self.common(base | fields))

    def outcome(
        self, decision: Decision, slot: int = 0, value: float = 1.0, **fields: Any
    ) -> Outcome:
        base = {
            "decision": decision.id,
            "slot": slot,
            "item": decision.slate[slot].item,
            "kind": "click",
        }
        return Outcome(**self.common(base | {"value": value, "updates_state": True} | fields))

    def observation(self, **fields: Any) -> Observation:
        return Observation(**self.common({"item": "red", "kind": "purchase"} | fields))


class FakeTransport:
    """Answers with what `answer` returns or raises; records events and headers of each batch."""

    def __init__(self, answer: Callable[[list[Event]], Response] | None = None) -> None:
        self.answer = answer or (lambda events: verdicts(events, "ok"))
        self.batches: list[list[Event]] = []
        self.headers: list[Mapping[str, str]] = []

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        self.batches.append([codec.decode(line) for line in codec.unpack(body)])
        self.headers.append(headers)
        return self.answer(self.batches[-1])


def status(code: int, **headers: str) -> Response:
    return Response(
        code, {name.replace("_", "-"): value for name, value in headers.items()}, b"<html>"
    )


def verdicts(events: list[Event], verdict: str) -> Response:
    rows = [
        wire.EventVerdict(event.id, verdict, "because" if verdict == "rejected" else "")
        for event in events
    ]
    return Response(200, {}, msgspec.json.encode({"verdicts": rows}))
