"""Engines that are fed with marks, and every place that they write to or speak in.

Refuses to know how they reach the lab.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sanderling import Engine
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.marks import Marks, where

SETTINGS = [
    {"window_s": 60.0, "adapt": True},
    {"share_context": True},
    {"privacy": 2.0},
    {"pseudonym_days": 1.0},
]


class Course:
    """`way` are the settings of `Engine.open` that lead to the lab, whose files lie in `lab` under `folder`; `spoil`
    breaks an engine on purpose, and `rest` lets the lab's time pass."""

    def __init__(
        self,
        folder: Path,
        way: dict[str, Any],
        spoil: Callable[[Engine], None] = lambda engine: None,
        rest: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.folder, self.way, self.spoil, self.rest = folder, way, spoil, rest
        self.users, self.contexts, self.texts, self.ids = kinds = [
            Marks(x) for x in ("user", "context", "text", "id")
        ]
        self.kinds = kinds
        self.clock = FakeClock()
        self.said: list[bytes] = []
        self.device: set[tuple[str, str]] = set()
        write_bundle(folder / "bundle")

    def expect(self, call, *arguments, **named) -> None:
        """Make a call that must fail, and keep what it says."""
        try:
            call(*arguments, **named)
        except Exception as error:
            self.said.append("".join(traceback.format_exception(error)).encode())
        else:
            raise AssertionError("expected an exception")

    def live(self, number: int, rounds: int) -> None:
        """Let one engine meet so many people, each with a context, an item's text and an id that nobody knows."""
        state = self.folder / f"state-{number}"
        settings = SETTINGS[number % len(SETTINGS)]
        engine = Engine.open(
            self.folder / "bundle", state, background=False, clock=self.clock, entropy=FakeEntropy(number),
            **self.way, **settings,
        )  # fmt: skip
        self.spoil(engine)
        for at in range(rounds):
            user, context, text, id = (marks.new() for marks in self.kinds)
            if at % 50 == 0:
                engine.upsert_items([{"id": f"new-{at}", "text": text, "colour": text}])
            if at % 10 == 3:
                context += "\ud800"
            slate = engine.recommend(user, k=3, context=context, exclude=[id], at_most={"price": 2})
            if at % 3 == 0:
                engine.observe(user, slate[0].id)
            if "window_s" in settings:
                engine.seen(slate)
            engine.reward_all(slate, {slate[0]: 1.0, slate[1]: -1.0})
            engine.explain(slate.decision)
            if at % 20 == 7:
                self._go_wrong(engine, slate, user, context)
            if at % 20 == 9:
                engine.forget_user(user)
                engine.reward(slate, slate[0], 1.0)
            if at % 25 == 1:
                engine.step()
            self.clock.advance(7)
        self.said.append(repr(engine.counters()).encode())
        while engine.counters()["outbox"].pending:
            wait = engine.step()
            self.clock.advance(wait)
            self.rest(wait)
        self.device |= where(state, self.kinds)
        engine.close()
        self.device |= where(state, self.kinds)

    def _go_wrong(self, engine, slate, user, context) -> None:
        self.expect(engine.recommend, user, k=0, context=context)
        self.expect(engine.recommend, user, context=[context])
        self.expect(engine.observe, user, "", context)
        self.expect(engine.observe, user, "item-1", user + "x" * 600)
        self.expect(engine.reward, slate, "nobody", 1.0)
        self.expect(engine.reward, slate, slate[0], float("nan"))
        self.expect(engine.explain, "0" * 32)
        self.expect(engine.recommend, user, at_most={"colour": 0})

    def leaks(self, wire: Iterable[bytes], logged: str) -> set[tuple[str, str]]:
        """Return where marks were found that should not be there, and of which kind."""
        places = {
            "wire": wire,
            "exceptions": self.said,
            "logs": [logged.encode("utf-8", "replace")],
        }
        found = {
            (place, marks.kind)
            for place, texts in places.items()
            for text in texts
            for marks in self.kinds
            if marks.found(text)
        }
        return found | self.device - {("added-items.jsonl", "text")} | self.stored()

    def stored(self) -> set[tuple[str, str]]:
        """Return where marks were found on the lab's disk."""
        return where(self.folder / "lab", self.kinds)
