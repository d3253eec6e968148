"""Runs engines with marks in all their inputs, and collects everything that they write or say."""

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
    """Runs engines over one bundle, and searches for their marks.

    `connection` are the options of `Engine.open` that lead to the lab, whose files are in
    `folder`/lab; `spoil` breaks an engine on purpose, and `pause` advances the lab's clock.
    """

    def __init__(
        self,
        folder: Path,
        connection: dict[str, Any],
        spoil: Callable[[Engine], None] = lambda engine: None,
        pause: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.folder = folder
        self.connection = connection
        self.spoil = spoil
        self.pause = pause
        self.kinds = [Marks(kind) for kind in ("user", "context", "text", "id")]
        self.clock = FakeClock()
        self.messages: list[bytes] = []
        self.device: set[tuple[str, str]] = set()
        write_bundle(folder / "bundle")

    def expect(self, call, *arguments, **named) -> None:
        """Make a call that must raise, and keep the traceback."""
        try:
            call(*arguments, **named)
        except Exception as error:
            self.messages.append("".join(traceback.format_exception(error)).encode())
        else:
            raise AssertionError("expected an exception")

    def run_engine(self, number: int, rounds: int) -> None:
        """Run an engine with so many users, each with marks as name, context, item text and unknown
        id.
        """
        state = self.folder / f"state-{number}"
        settings = SETTINGS[number % len(SETTINGS)]
        engine = Engine.open(
            self.folder / "bundle", state, background=False, clock=self.clock,
            entropy=FakeEntropy(number), **self.connection, **settings,
        )  # fmt: skip
        self.spoil(engine)
        for turn in range(rounds):
            user, context, text, id = (marks.new() for marks in self.kinds)
            if turn % 50 == 0:
                engine.upsert_items([{"id": f"new-{turn}", "text": text, "colour": text}])
            if turn % 10 == 3:
                context += "\ud800"
            slate = engine.recommend(user, k=3, context=context, exclude=[id], at_most={"price": 2})
            if turn % 3 == 0:
                engine.observe(user, slate[0].id)
            if "window_s" in settings:
                engine.seen(slate)
            engine.reward_all(slate, {slate[0]: 1.0, slate[1]: -1.0})
            engine.explain(slate.decision)
            if turn % 20 == 7:
                self._call_wrongly(engine, slate, user, context)
            if turn % 20 == 9:
                engine.forget_user(user)
                engine.reward(slate, slate[0], 1.0)
            if turn % 25 == 1:
                engine.step()
            self.clock.advance(7)
        self.messages.append(repr(engine.counters()).encode())
        while engine.counters()["outbox"].pending:
            wait = engine.step()
            self.clock.advance(wait)
            self.pause(wait)
        self.device |= where(state, self.kinds)
        engine.close()
        self.device |= where(state, self.kinds)

    def _call_wrongly(self, engine, slate, user, context) -> None:
        self.expect(engine.recommend, user, k=0, context=context)
        self.expect(engine.recommend, user, context=[context])
        self.expect(engine.observe, user, "", context)
        self.expect(engine.observe, user, "item-1", user + "x" * 600)
        self.expect(engine.reward, slate, "nobody", 1.0)
        self.expect(engine.reward, slate, slate[0], float("nan"))
        self.expect(engine.explain, "0" * 32)
        self.expect(engine.recommend, user, at_most={"colour": 0})

    def leaks(self, wire: Iterable[bytes], logged: str) -> set[tuple[str, str]]:
        """Return the places where marks leaked, with the kind of mark."""
        places = {
            "wire": wire,
            "exceptions": self.messages,
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
        """Return the files of the lab that have marks, with the kind of mark."""
        return where(self.folder / "lab", self.kinds)
