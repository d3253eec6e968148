"""The uploader deletes only what the response names, never gives up, and never floods the
collector.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import StorageError
from sanderling.events import schema as wire
from sanderling.events.schema import Event, EventVerdict, Loss
from sanderling.upload.backoff import FIRST_BACKOFF_S, MAX_BACKOFF_S, OFFLINE_DELAY_S, Backoff
from sanderling.upload.transport import NoNetworkError, Response, retry_after_s
from tests.support.fakes import EventFactory, status, verdicts
from tests.support.outboxes import database
from tests.support.upload_bench import Bench


def test_batches_are_sent_oldest_first(bench):
    """Batches follow each other without a wait, in the order of `seq`, and empty the outbox."""
    b = bench(1200)
    assert [b.uploader.step() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert b.pending() == []
    assert [event.seq for batch in b.transport.batches for event in batch] == list(range(1, 1201))
    assert b.uploader.step() > 1
    counters = b.uploader.counters
    assert (counters.attempts, b.outbox.counters().acknowledged) == (3, 1200)


def test_sent_at_is_the_time_of_the_attempt(bench):
    """Each attempt has the wall time at which it is made, not that of the first attempt."""
    b = bench(1, lambda events: status(503))
    b.clock.advance(b.uploader.step())
    b.uploader.step()
    assert b.transport.headers[1]["sent-at"] == str(b.clock.wall_ms())
    assert b.transport.headers[0]["sent-at"] < b.transport.headers[1]["sent-at"]


@pytest.mark.parametrize(
    "code",
    [
        204,
        301,
        304,
        400,
        401,
        403,
        404,
        405,
        408,
        409,
        410,
        411,
        415,
        422,
        425,
        429,
        451,
        500,
        503,
        511,
        999,
    ],
)
def test_other_statuses_delete_nothing_and_wait(bench, code):
    """After any other status nothing is deleted, and the next attempt waits."""
    b = bench(3, lambda events: status(code))
    for _ in range(20):
        delay = b.uploader.step()
        assert 0 < delay <= MAX_BACKOFF_S
        b.clock.advance(delay)
    assert b.pending() == [1, 2, 3]
    assert b.uploader.counters.attempts >= 20


PROBLEMS = {
    301: (True, "redirects to 'https://elsewhere.example/v1'"),
    401: (True, "does not accept the token; check `token`"),
    404: (True, "no collector at this URL; check `collector`"),
    422: (True, "refuses this batch"),
    204: (True, "is not that of a collector"),
    429: (False, "too many requests"),
    500: (False, "fails; trying again later"),
    503: (False, "overloaded"),
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_why_nothing_is_uploaded_is_told(bench, caplog, code):
    """The counters have the last status and what it means; what somebody must change is warned of
    once, and again only after a success.
    """
    caplog.set_level("INFO", "sanderling")
    needs_action, words = PROBLEMS[code]
    headers = {"location": "https://elsewhere.example/v1"}
    b = bench(3, lambda events: Response(code, headers, b""))
    for _ in range(5):
        b.clock.advance(b.uploader.step())
    counters = b.uploader.counters
    assert counters.last_status == code
    assert counters.last_problem.startswith(f"{code}: ")
    assert words in counters.last_problem
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == needs_action
    assert all(counters.last_problem in record.getMessage() for record in warned)

    b.transport.answer = lambda events: verdicts(events, "ok")
    b.run(3)
    assert (counters.last_status, counters.last_problem) == (200, "")


def test_a_captive_portal_is_told(bench, caplog):
    """A page with status 200 in the collector's place is no success."""
    b = bench(3, lambda events: Response(200, {}, b"<html>please sign in</html>"))
    b.uploader.step()
    assert b.uploader.counters.last_status == 200
    assert "not that of a collector" in b.uploader.counters.last_problem
    assert len(caplog.records) == 1


def test_a_broken_connection_is_told(bench):
    """Without a response there is no status; the problem is the connection's."""

    def broken(events: list[Event]) -> Response:
        raise ConnectionRefusedError("https://x/v1/events: connection refused")

    b = bench(1, broken)
    b.uploader.step()
    assert b.uploader.counters.last_status is None
    assert b.uploader.counters.last_problem == "https://x/v1/events: connection refused"


def test_a_broken_network_is_retried_for_ever(bench):
    """After a thousand failures all events are there, and are sent when the network is back."""

    def broken(events: list[Event]) -> Response:
        raise ConnectionResetError("reset")

    b = bench(5, broken)
    for _ in range(1000):
        b.clock.advance(b.uploader.step())
    b.transport.answer = lambda events: verdicts(events, "ok")
    b.run(3)
    assert b.pending() == []


def test_a_step_that_comes_too_early_waits(bench):
    """A step before its time sends nothing and returns how long is left."""
    b = bench(1, lambda events: status(503, retry_after="60"))
    assert b.uploader.step() >= 60
    b.clock.advance(59)
    assert 0 < b.uploader.step() <= 2
    assert b.uploader.counters.attempts == 1


def test_only_the_listed_ids_are_deleted(bench):
    """Unlisted ids stay, ids that were never sent change nothing, duplicates count as stored."""

    def answer(events: list[Event]) -> Response:
        rows = [
            wire.EventVerdict(events[0].id, "ok"),
            wire.EventVerdict(events[1].id, "duplicate"),
            wire.EventVerdict("f" * 32, "ok"),
        ]
        return Response(200, {}, msgspec.json.encode(wire.BatchResponse(rows)))

    b = bench(4, answer, max_events=3)
    assert b.uploader.step() > 0
    assert b.pending() == [3, 4]
    assert (b.outbox.counters().acknowledged, b.uploader.counters.duplicates) == (2, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>please log in</html>",
        b"{",
        b'{"verdicts":[]}',
        b'{"verdicts":[{"id":1}]}',
        b"[" * 10**5,
    ],
)
def test_a_captive_portal_deletes_nothing(bench, body):
    """A response 200 that is no list of verdicts is a failure like any other."""
    b = bench(2, lambda events: Response(200, {}, body))
    assert b.uploader.step() > 0
    assert b.pending() == [1, 2]


def test_rejected_events_are_deleted_and_reported_as_losses(bench):
    """A rejected event leaves the queue, and a `Loss` event with the reason takes its place."""
    b = bench(2, lambda events: verdicts(events, "rejected"))
    b.uploader.step()
    b.transport.answer = lambda events: verdicts(events, "ok")
    b.run(5)
    losses = b.transport.batches[-1]
    assert [(type(loss), loss.reason, loss.observations) for loss in losses] == [
        (Loss, "because", 1)
    ] * 2
    assert b.uploader.counters.rejected == 2


def test_a_batch_too_large_is_halved(bench):
    """413 halves the batch until it passes; everything arrives, nothing is lost."""
    b = bench(300, lambda events: status(413) if len(events) > 40 else verdicts(events, "ok"))
    b.run(60)
    assert b.pending() == []
    assert b.delivered() == list(range(1, 301))
    assert b.outbox.counters().lost == {}


def body_of(code: int, body: bytes) -> Callable[[list[Event]], Response]:
    return lambda events: Response(code, {}, body)


PAGES = {
    "400, a page": body_of(400, b"<html>"),
    "422, a page": body_of(422, b"<html>"),
    "413, a page": body_of(413, b"<html>"),
    "400, nothing": body_of(400, b""),
    "400, the collector's own": body_of(400, b'{"error":"expected a zstd frame"}'),
    "413, the collector's own": body_of(413, b'{"error":"expected at most 16 installs"}'),
    "400, a gateway's JSON": body_of(400, b'{"error":"Bad Request"}'),
    "400, a framework's JSON": body_of(400, b'{"error":"expected a body","status":400}'),
    "413, a gateway's JSON": body_of(413, b'{"error":"Request body too large"}'),
    "400, depth": body_of(400, b"[" * 10**5),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_refused_batch_loses_nothing(bench, name):
    """After a day in which every batch was refused, also by proxies, every event arrives."""
    b = bench(300, PAGES[name])
    while b.clock.mono_ms() < 86_400_000:
        b.clock.advance(max(0.01, b.uploader.step()))
    assert (len(b.pending()), b.outbox.counters().lost) == (300, {})
    assert b.uploader.counters.attempts < 500
    b.transport.answer = lambda events: verdicts(events, "ok")
    b.run(100)
    assert (b.pending(), b.outbox.counters().acknowledged) == ([], 300)


def test_one_rejected_event_does_not_block_the_others(bench):
    """One rejected event among 10,000 costs no further request, and all others arrive."""

    def answer(events: list[Event]) -> Response:
        rows = [wire.EventVerdict(e.id, "rejected" if e.seq == 4321 else "ok") for e in events]
        return Response(200, {}, msgspec.json.encode(wire.BatchResponse(rows)))

    b = bench(10_000, answer)
    b.run(60)
    assert b.pending() == []
    assert b.uploader.counters.attempts == 20 + 1
    assert b.uploader.counters.rejected == 1
    assert b.outbox.counters().acknowledged == 10_000  # with the declaration of the loss


def test_a_failing_outbox_stops_uploading(bench, monkeypatch):
    """When deleting fails the uploader waits, rather than sending the same events in a loop."""
    b = bench(5)

    def fail(ids) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(b.outbox, "acknowledge", fail)
    assert b.uploader.step() > 0
    assert b.uploader.step() > 0
    assert b.uploader.counters.attempts == 1


def test_being_offline_waits_briefly_and_counts_as_no_failure(bench):
    """Offline, the next attempt is within a minute each time, and the backoff does not grow."""
    error: type[OSError] = NoNetworkError

    def fail(events: list[Event]) -> Response:
        raise error

    b = bench(1, fail)
    for _ in range(100):
        delay = b.uploader.step()
        assert OFFLINE_DELAY_S / 2 <= delay <= OFFLINE_DELAY_S
        assert b.uploader.step() == pytest.approx(delay, abs=0.001)
        b.clock.advance(delay)
    error = ConnectionResetError
    assert b.uploader.step() <= FIRST_BACKOFF_S
    assert b.uploader.counters.attempts == 101


@given(st.integers(0, 40), st.floats(0, 300), st.integers(0, 2**32))
def test_backoff_stays_between_its_bounds(failures, at_least, seed):
    """Every delay is at least what the server asked for, and at most the cap more."""
    backoff = Backoff(random.Random(seed))
    for failure in range(failures):
        assert 0 <= backoff.failure_delay_s() <= min(MAX_BACKOFF_S, 2.0**failure)
    assert at_least <= backoff.failure_delay_s(at_least) <= at_least + MAX_BACKOFF_S


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120), ("0", 0), ("-1", 0), ("1000000000", 300), ("9" * 400, 300), ("soon", 0),
        ("NaN", 0), ("", 0), ("1.5", 0), ("Sun, 15 Jun 2025 15:08:40 GMT", 0), ("²", 0),
    ],
)  # fmt: skip
def test_all_forms_of_retry_after(value, expected):
    """Seconds are understood and clamped to 300; anything else asks for nothing."""
    assert retry_after_s({"retry-after": value}) == expected


def test_drain_includes_queued_events_and_ends_in_time(bench):
    """`drain` sends what is still queued in memory; it gives up if the next attempt is too late."""
    b = bench(0)
    b.outbox.put([b.make.observation() for _ in range(700)])
    assert b.uploader.drain(5.0)
    assert b.pending() == []
    b.outbox.put([b.make.observation()])
    b.transport.answer = lambda events: status(429, retry_after="60")
    started = time.monotonic()
    assert not b.uploader.drain(50.0)
    assert time.monotonic() - started < 25


def test_drain_continues_behind_a_damaged_batch(bench):
    """Where all events of the next batch are damaged, `drain` continues with those that follow."""
    b = bench(5, max_events=2)
    database(b.folder).execute("UPDATE event SET crc = 0 WHERE seq <= 4")
    assert b.uploader.drain(5.0)
    assert b.delivered() == [5, 6, 7, 8, 9]
    assert b.outbox.counters().pending == 0


def test_a_rejected_loss_is_declared_by_the_next_one(bench):
    """The next `Loss` event names the number of a rejected one, which the lab may have."""

    def answer(events: list[Event]) -> Response:
        return verdicts(events, "rejected" if len(b.transport.batches) < 3 else "ok")

    b = bench(1, answer)
    b.run(5)
    assert [[e.seq for e in batch] for batch in b.transport.batches] == [[1], [2], [3]]
    (loss,) = b.transport.batches[-1]
    assert isinstance(loss, Loss)
    assert (loss.reason, loss.lost_seqs) == ("because", [2])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ok", "lost answer", "half", "503", "413", "reset", "retry"]),
        max_size=25,
    ),
    st.integers(1, 9),
)
def test_any_sequence_of_failures_delivers_everything(tmp_path_factory, failures, size):
    """Whatever the network does, the receiver has each event once by id, and no unreported gap."""
    received: dict[str, Event] = {}
    steps = iter(failures)

    def answer(events: list[Event]) -> Response:
        act = next(steps, "ok")
        if act == "reset":
            raise ConnectionResetError
        if act in ("503", "413"):
            return status(int(act))
        if act == "retry":
            return verdicts(events, "retry")
        stored = events[: len(events) // 2] if act == "half" else events
        repeated = [event for event in stored if event.id in received]
        assert all(received[event.id] == event for event in repeated)
        received.update({event.id: event for event in stored})
        if act == "lost answer":
            raise TimeoutError
        return verdicts(stored, "ok")

    b = Bench(tmp_path_factory.mktemp("failures"), 20, answer, max_events=size)
    b.run(200)
    events = list(received.values())
    reported = sum(event.observations for event in events if isinstance(event, Loss))
    assert b.outbox.counters().pending == 0
    assert max(event.seq for event in events) - len(events) - reported == 0
    b.outbox.close()


@pytest.mark.parametrize(("named", "rotations"), [("mine", 1), ("another", 0), ("nobody", 0)])
def test_a_request_to_rotate_reaches_the_hook(bench, named, rotations):
    """The hook is called after the verdicts, and only when this install is named."""
    pending: list[int] = []

    def answer(events):
        names = {"mine": [events[0].install], "another": ["f" * 32], "nobody": []}[named]
        rows = [EventVerdict(event.id, "ok") for event in events]
        return Response(200, {}, msgspec.json.encode(wire.BatchResponse(rows, names)))

    b = bench(3, answer, on_rotate=lambda: pending.append(len(b.pending())))
    b.run(5)
    assert (pending, b.uploader.counters.rotations) == ([0] * rotations, rotations)


def test_an_erased_install_erases_its_events_and_takes_a_new_identity(bench):
    """After a 410 no file names the old install, and later events are sent under a new identity."""
    erased: set[str] = set()
    gone = lambda events: Response(410, {}, events[0].install.encode())  # noqa: E731
    b = bench(
        30, lambda events: gone(events) if events[0].install in erased else verdicts(events, "ok")
    )
    install, secret = b.outbox.identity
    erased.add(install)
    assert b.uploader.step() > 0
    b.clock.advance(MAX_BACKOFF_S)
    renewed = b.outbox.identity
    assert (renewed.install != install, renewed.secret != secret, b.pending()) == (True, True, [])
    assert b.uploader.counters.erasures == 1
    for path in b.folder.rglob("*"):
        assert install.encode() not in path.read_bytes(), path
    b.outbox.put_durable([EventFactory(b.outbox.install).decision()])
    assert b.uploader.step() == 0.0
    assert [event.seq for event in b.transport.batches[-1]] == [1]
    assert b.pending() == []
