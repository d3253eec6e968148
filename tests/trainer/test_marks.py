"""No personal data leaves: marks in names, contexts, texts and ids are looked for wherever anything goes (promise P33).

What may travel: ids of items that were shown or observed, kinds, names of capped attributes, and with `share_context`
the vector of a context. What may lie on the device: the items that the app added, in `added-items.jsonl`. An exception
may name the item that the app passed to the call that raised it.
"""

from __future__ import annotations

import base64
import logging
import traceback

import pytest
import zstandard

from sanderling import Engine
from sanderling_trainer.fleet.compact import compact
from tests.bundles import write_bundle
from tests.fakes import FakeClock, FakeEntropy
from tests.fleet.lab import Lab
from tests.fleet.world import World
from tests.trainer.marks import Marks, contents, where

pytestmark = pytest.mark.lab

SETTINGS = [{"window_s": 60.0, "adapt": True}, {"share_context": True}, {"privacy": 2.0}, {"pseudonym_days": 1.0}]


class Tapped:
    """A lab behind a tap: all that goes over the wire, packed and unpacked."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.wire = lab, list[bytes]()

    def post(self, body, headers):
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        self.wire += [body, unpacked, repr(dict(headers)).encode()]
        answer = self.lab.post(body, headers)
        self.wire += [answer.body, repr(dict(answer.headers)).encode()]
        return answer


class Course:
    """Engines that are fed with marks, everything that they say, and every place that they write to."""

    def __init__(self, folder, spoil=lambda engine: None) -> None:
        self.folder, self.spoil = folder, spoil
        self.users, self.contexts, self.texts, self.ids = kinds = [Marks(x) for x in ("user", "context", "text", "id")]
        self.kinds = kinds
        self.clock, self.world = FakeClock(), World(0)
        self.lab = Lab(self.world, folder / "lab")
        self.wire = Tapped(self.lab)
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
            self.folder / "bundle", state, transport=self.wire, background=False, clock=self.clock,
            entropy=FakeEntropy(number), **settings,
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
            self.world.take(wait)
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

    def leaks(self, logged: str) -> set[tuple[str, str]]:
        """Return where marks were found that should not be there, and of which kind."""
        places = {"wire": self.wire.wire, "exceptions": self.said, "logs": [logged.encode("utf-8", "replace")]}
        found = {
            (place, marks.kind)
            for place, texts in places.items()
            for marks in self.kinds
            if any(marks.found(text) for text in texts)
        }
        found |= self.device - {("added-items.jsonl", "text")}
        found |= where(self.folder / "lab", self.kinds)
        self.world.take(2 * 86_400)
        compact(self.lab.store, self.world)
        return found | where(self.folder / "lab", self.kinds)


def run(folder, caplog, rounds: int, spoil=lambda engine: None) -> tuple[Course, set[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG)
    course = Course(folder, spoil)
    try:
        for number in range(len(SETTINGS)):
            course.live(number, rounds)
        assert course.said
        assert list((folder / "lab").rglob("*.zst"))
        return course, course.leaks(caplog.text)
    finally:
        course.lab.close()


def test_no_mark_is_found_where_nobody_put_it(tmp_path, caplog):
    """Of 400 marks none is on the wire, in logs, exceptions, the lab's files or, but for added items, on the device."""
    course, found = run(tmp_path, caplog, 25)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 400
    assert list((tmp_path / "lab").rglob("*.parquet"))


@pytest.mark.soak
def test_none_of_ten_thousand_marks_is_found(tmp_path, caplog):
    """The same for 10,000 marks."""
    course, found = run(tmp_path, caplog, 625)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 10_000


def log_context(engine) -> None:
    """The engine that logs contexts."""
    honest = engine._encode_context
    engine._encode_context = lambda scorer, text: (logging.info("encoding %s", text), honest(scorer, text))[1]


def send_user(engine) -> None:
    """The engine that says who observed something, and hides it a little."""
    honest = engine.observe
    engine.observe = lambda user, item: honest(user, item, base64.b64encode(b"v:" + user.encode()).decode())


def send_text(engine) -> None:
    """The engine that shows added items under their text."""
    honest = engine.upsert_items
    engine.upsert_items = lambda items: [engine.observe("x", item["text"]) for item in items] and honest(items)


@pytest.mark.parametrize(
    ("spoil", "leak"),
    [(log_context, ("logs", "context")), (send_user, ("wire", "user")), (send_text, ("wire", "text"))],
)
def test_the_marks_find_who_tells(tmp_path, caplog, spoil, leak):
    """An engine that logs contexts, or sends names or texts, is found out, on the wire and at the lab (P4)."""
    _, found = run(tmp_path, caplog, 5, spoil)
    assert leak in found
    if spoil is not log_context:
        assert any(place.endswith(".jsonl.zst") for place, _ in found)
        assert any(place.startswith("outbox.db") for place, _ in found)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.hex().upper().encode(),
        base64.b64encode,
        base64.urlsafe_b64encode,
        lambda text: text.decode().encode("utf-16-be"),
        lambda text: text.upper(),
        lambda text: zstandard.ZstdCompressor().compress(b"x" * 99 + text),
    ],
)
def test_a_mark_is_found_in_any_form(tmp_path, before, write):
    """However a mark is written into a file, at whatever offset, it is found; and nothing where there is none."""
    marks = Marks("user")
    assert not marks.found(write(b"nothing to be seen here, but for a canary" * 9))
    (tmp_path / "file").write_bytes(write(b"x" * before + marks.new().encode()))
    assert any(marks.found(text) for text in contents(tmp_path / "file"))
