"""No personal data leaves: canaries in user names, contexts, texts and ids are searched for in all
outputs.

Allowed on the wire: ids of items that were shown or observed, kinds, names of capped attributes,
and with `share_context` the vector of a context. Allowed on the device: the items that the app
added, in `added-items.jsonl`. An exception may name the item that the app passed to the call.
"""

from __future__ import annotations

import base64
import logging

import pytest
import zstandard

from sanderling_trainer.jobs.compact import compact
from tests.support.fleet.server import SimulatedServer
from tests.support.fleet.simulation import Simulation
from tests.support.marked import SETTINGS, Course
from tests.support.marks import Marks, contents

pytestmark = pytest.mark.lab


class TappedServer:
    """A lab that records all bytes sent to it and answered, compressed and decompressed."""

    def __init__(self, server: SimulatedServer) -> None:
        self.server, self.wire = server, list[bytes]()

    def post(self, body, headers):
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        self.wire += [body, unpacked, repr(dict(headers)).encode()]
        answer = self.server.post(body, headers)
        self.wire += [answer.body, repr(dict(answer.headers)).encode()]
        return answer


def run(
    folder, caplog, rounds: int, spoil=lambda engine: None
) -> tuple[Course, set[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG)
    simulation = Simulation(0)
    server = SimulatedServer(simulation, folder / "lab")
    wire = TappedServer(server)
    course = Course(folder, {"transport": wire}, spoil, simulation.advance)
    try:
        for number in range(len(SETTINGS)):
            course.run_engine(number, rounds)
        assert course.messages
        assert list((folder / "lab").rglob("*.zst"))
        found = course.leaks(wire.wire, caplog.text)
        simulation.advance(2 * 86_400)
        compact(server.store, simulation)
        return course, found | course.stored()
    finally:
        server.close()


def test_no_mark_leaks(tmp_path, caplog):
    """None of 400 marks is on the wire, in logs, exceptions, the lab's files or, but for added
    items, on the device.
    """
    course, found = run(tmp_path, caplog, 25)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 400
    assert list((tmp_path / "lab").rglob("*.parquet"))


@pytest.mark.soak
def test_none_of_ten_thousand_marks_leaks(tmp_path, caplog):
    """The same for 10,000 marks."""
    course, found = run(tmp_path, caplog, 625)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 10_000


def log_context(engine) -> None:
    """Make the engine log contexts."""
    honest = engine.recommend

    def recommend(user, **options):
        logging.info("encoding %s", options["context"])
        return honest(user, **options)

    engine.recommend = recommend


def send_user(engine) -> None:
    """Make the engine send user names, encoded in base64."""
    honest = engine.observe
    engine.observe = lambda user, item: honest(
        user, item, base64.b64encode(b"v:" + user.encode()).decode()
    )


def send_text(engine) -> None:
    """Make the engine send the texts of added items."""
    honest = engine.upsert_items
    engine.upsert_items = lambda items: (
        [engine.observe("x", item["text"]) for item in items] and honest(items)
    )


@pytest.mark.mutant
@pytest.mark.parametrize(
    ("spoil", "leak"),
    [
        (log_context, ("logs", "context")),
        (send_user, ("wire", "user")),
        (send_text, ("wire", "text")),
    ],
)
def test_the_marks_find_a_leak(tmp_path, caplog, spoil, leak):
    """The search finds an engine that logs contexts, or sends names or texts, on the wire and at
    the lab.
    """
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
    """A mark is found in every encoding and at every offset, and none is found in other text."""
    marks = Marks("user")
    assert not marks.found(write(b"nothing to be seen here, but for a canary" * 9))
    (tmp_path / "file").write_bytes(write(b"x" * before + marks.new().encode()))
    assert any(marks.found(text) for text in contents(tmp_path / "file"))
