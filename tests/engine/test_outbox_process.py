"""The outbox in a host's process: it ends when the host ends, and lives where little is given (P31, P32)."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sanderling import Engine, upload
from sanderling.clock import SystemClock
from sanderling.errors import StorageError
from sanderling.outbox import Outbox
from sanderling.upload import Uploader
from tests.support.bundles import trying, write_bundle
from tests.support.fakes import EventFactory, FakeTransport

ROOT = Path(__file__).parents[2]

RECORD = """
import random, sys
from pathlib import Path
from sanderling.clock import SystemClock
from sanderling.outbox import Outbox
from sanderling.transport import HttpTransport
from sanderling.upload import Uploader
from tests.support.fakes import EventFactory
outbox = Outbox(Path(sys.argv[1]), clock=SystemClock())
make = EventFactory(outbox.install)
outbox.put_durable([make.decision() for _ in range(50)])
transport = HttpTransport(f"http://127.0.0.1:{sys.argv[2]}", None)
class AtOnce(random.Random):
    def uniform(self, a, b):
        return a
uploader = Uploader(outbox, transport, clock=SystemClock(), rng=AtOnce())
uploader.start()
while not uploader.counters.attempts:
    pass
"""


@pytest.fixture
def deaf():
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def run(code: str, *arguments: object, before: str = "", **environment: str) -> tuple[float, int]:
    """Run code in a fresh interpreter behind a shell command; return its seconds and exit status."""
    command = ["bash", "-c", f'{before} exec "$0" "$@"', sys.executable, "-c", code, *map(str, arguments)]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, timeout=30)
    return time.monotonic() - start, done.returncode


@pytest.mark.parametrize(
    "end", ["", "sys.exit(0)", "outbox.close(); uploader.stop()", "uploader.stop(); outbox.close()"]
)
def test_the_interpreter_ends_with_a_post_under_way(tmp_path, deaf, end):
    """With a post to a server that never answers, and nothing closed, the process ends and the rows stay (P32)."""
    seconds, status = run(RECORD + end, tmp_path, deaf)
    assert (status, seconds < 5) == (0, True)
    outbox = Outbox(tmp_path, clock=SystemClock())
    assert outbox.counters().pending == 50
    outbox.close()


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("ulimit -n 32;", {}),
        ("ulimit -s 1024;", {}),
        ("", {"TZ": "Pacific/Apia", "LANG": "C", "LC_ALL": "C"}),
        ("", {"PYTHONOPTIMIZE": "2"}),
        ("", {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_poor_environment_is_enough(tmp_path, deaf, before, environment):
    """Few descriptors, a small stack, a strange locale, no asserts: events are stored all the same (bad input 80)."""
    assert run(RECORD, tmp_path, deaf, before=before, **environment)[1] == 0
    outbox = Outbox(tmp_path, clock=SystemClock())
    assert outbox.counters().pending == 50
    outbox.close()


def test_an_engine_closes_in_two_seconds_without_a_network(tmp_path, deaf, monkeypatch):
    """Closing an engine whose collector is black-holed takes two seconds at most, a second of them for the post (P32):
    with a tenth for the post, the rest has time enough on a machine that stands still meanwhile."""
    monkeypatch.setattr(upload, "LAST_POST_S", upload.LAST_POST_S / 10)
    assert upload.LAST_POST_S <= 0.1
    write_bundle(tmp_path / "bundle")
    engine = Engine.open(tmp_path / "bundle", tmp_path / "state", f"http://127.0.0.1:{deaf}")
    slate = engine.recommend("anna")
    engine.reward(slate, slate[0], 1.0)
    posting = threading.Thread(target=engine.flush, args=(20.0,), daemon=True)
    posting.start()
    while engine.counters()["upload"].attempts == 0:
        time.sleep(0.01)
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start <= 2.0


def refused(change: Callable[[], object]) -> bool:
    try:
        change()
    except StorageError:
        return True
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_closes_leaves_the_parents_releases_alone(tmp_path):
    """A child that decides and closes neither confirms a release in the parent's folder nor takes its try back."""
    write_bundle(tmp_path / "bundle")
    slots = tmp_path / "state" / "bundles" / "slots.json"
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        before = slots.read_bytes()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            engine.recommend("anna")
            engine.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert slots.read_bytes() == before
        engine.recommend("anna")
    assert b'"confirmed":true' in slots.read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_recommends_whatever_other_threads_held_at_the_fork(tmp_path):
    """Locks that are held by threads which do not come along keep no child from recommending and closing (P32)."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        scorer, people, serving = engine._serving.scorer, engine._people, engine._serving
        locks = [people._lock, serving.swapping, serving.slots._lock, scorer.encoder._loading, scorer.encoder._keeping]
        locks += [scorer._parts.table._packing, engine._outbox._reading, engine._outbox._wake]
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                held.set()
                forked.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            slates = [engine.recommend(user, context="snow") for user in ("anna", "ben")]
            left = refused(partial(engine.upsert_items, [{"id": "new", "text": "new"}])) and refused(engine.rollback)
            engine.close()
            os._exit(0 if left and all(len(slate) for slate in slates) else 1)
        forked.set()
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


HANDLER = """
import random, signal, sys
from sanderling import Engine
class Down:
    def post(self, body, headers):
        raise OSError("down")
engine = Engine.open(sys.argv[1], sys.argv[2], transport=Down())
calls = []
def handler(*_):
    slate = engine.recommend(f"user {len(calls) % 3}", context=f"context {len(calls)}")
    engine.observe("anna", slate[0].id)
    calls.append(engine.reward(slate, slate[0], 1.0) if len(calls) % 10 == 0 else None)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(calls) < 150:
    slate = engine.recommend("anna", context=f"other {len(calls)}")
    engine.observe("anna", slate[0].id)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
engine.close()
"""

AT_EXIT = """
import atexit, os, sys
from sanderling import Engine
engine = Engine.open(sys.argv[1], sys.argv[2])
def last():
    slate = engine.recommend("anna")
    stored = engine.reward(slate, slate[0], 1.0)
    open(sys.argv[2] + "/last", "w").write(str(stored.stored))
atexit.register(last)
"""


def test_a_signal_handler_may_do_what_it_interrupts(tmp_path):
    """A handler that recommends, observes and rewards amid the same calls ends, and so does what it interrupted."""
    write_bundle(tmp_path / "bundle")
    assert run(HANDLER, tmp_path / "bundle", tmp_path / "state")[1] == 0


def test_an_engine_works_until_the_interpreter_ends(tmp_path):
    """A function called at exit still recommends and stores a reward; the process ends though nothing was closed."""
    write_bundle(tmp_path / "bundle")
    seconds, status = run(AT_EXIT, tmp_path / "bundle", tmp_path / "state")
    assert (status, seconds < 8, (tmp_path / "state" / "last").read_text()) == (0, True, "True")
    outbox = Outbox(tmp_path / "state", clock=SystemClock())
    assert outbox.counters().pending == 2
    outbox.close()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(outbox: Outbox, make: EventFactory, rounds: int) -> None:
    """Record ten decisions and send them, so many times."""
    uploader = Uploader(outbox, FakeTransport(), clock=SystemClock(), rng=random.Random(0))
    for _ in range(rounds):
        outbox.put_durable([make.decision() for _ in range(10)])
        uploader._transport.batches.clear()
        uploader._transport.headers.clear()
        while outbox.counters().pending:
            uploader.step()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_opening_and_closing_leaves_nothing_behind(tmp_path):
    """After 60 openings there are no more descriptors and threads than after the first."""
    counts = []
    for _ in range(60):
        outbox = Outbox(tmp_path, clock=SystemClock())
        outbox.put_durable([])
        outbox.close()
        counts.append((descriptors(), threading.active_count()))
    assert all(last <= first for first, last in zip(counts[0], counts[-1], strict=True))


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_uploads_do_not_leak(tmp_path):
    """Over 10,000 uploads after 1,000 of warming up the memory grows by less than 1 kB for 1,000 decisions (P31)."""
    outbox = Outbox(tmp_path, clock=SystemClock())
    make = EventFactory(outbox.install)
    work(outbox, make, 1000)
    before, open_before = resident(), descriptors()
    work(outbox, make, 10_000)
    grown = (resident() - before) / 100  # bytes for 1,000 decisions
    print(f"10,000 uploads of 10 decisions: {grown:.0f} bytes for 1,000 decisions")
    assert descriptors() == open_before
    assert grown <= 1024
    outbox.close()
