"""The outbox in an app's process: at exit, in forked children, and in poor environments."""

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
from pathlib import Path

import pytest

from sanderling import Engine, Slate
from sanderling.outbox.folder_lock import WRITING
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from sanderling.runtime.fork_safety import connect
from sanderling.upload import uploader as upload
from sanderling.upload.uploader import Uploader
from tests.support.bundles import trying, write_bundle
from tests.support.engines import locks_of
from tests.support.fakes import EventFactory, FakeTransport

ROOT = Path(__file__).parents[2]

RECORD = """
import random, sys
from pathlib import Path
from sanderling.runtime.clock import SystemClock
from sanderling.outbox.outbox import Outbox
from sanderling.upload.transport import HttpTransport
from sanderling.upload.uploader import Uploader
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
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def run(code: str, *arguments: object, before: str = "", **environment: str) -> tuple[float, int]:
    """Run code in a fresh interpreter behind a shell command; return its seconds and exit
    status."""
    command = [
        "bash",
        "-c",
        f'{before} exec "$0" "$@"',
        sys.executable,
        "-c",
        code,
        *map(str, arguments),
    ]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, timeout=30)
    return time.monotonic() - start, done.returncode


@pytest.mark.parametrize(
    "end", ["", "sys.exit(0)", "outbox.close(); uploader.stop()", "uploader.stop(); outbox.close()"]
)
def test_the_interpreter_ends_during_a_post(tmp_path, deaf, end):
    """With a post to a server that never answers and nothing closed, the process ends and the
    rows stay."""
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
    """Few descriptors, a small stack, a strange locale, no asserts: events are stored all the
    same."""
    assert run(RECORD, tmp_path, deaf, before=before, **environment)[1] == 0
    outbox = Outbox(tmp_path, clock=SystemClock())
    assert outbox.counters().pending == 50
    outbox.close()


def test_an_engine_closes_in_two_seconds_without_a_network(tmp_path, deaf, monkeypatch):
    """Closing an engine whose collector never answers takes two seconds at most, one of them for
    the post.

    The test gives the post a tenth of that, so that a slow machine has time for the rest.
    """
    monkeypatch.setattr(upload, "STOP_WAIT_S", upload.STOP_WAIT_S / 10)
    assert upload.STOP_WAIT_S <= 0.1
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


def refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError as error:
        return "found a fork of it" in str(error)
    return False


def calls(engine: Engine, slate: Slate) -> list[Callable[[], object]]:
    """Return every call of an engine except `close`."""
    return [
        lambda: engine.release,
        lambda: engine.recommend("anna", context="snow"),
        lambda: engine.observe("anna", slate[0].id),
        lambda: engine.seen(slate),
        lambda: engine.reward(slate, slate[0], 1.0),
        lambda: engine.reward_all(slate, {slate[0]: 1.0}),
        lambda: engine.receipt("a" * 32),
        lambda: engine.upsert_items([{"id": "new", "text": "new"}]),
        lambda: engine.remove_items([slate[0].id]),
        lambda: engine.explain(slate.decision),
        lambda: engine.forget_user("anna"),
        lambda: engine.flush(1.0),
        engine.step,
        engine.update,
        engine.rollback,
        engine.warm_up,
        engine.counters,
    ]


def fork(child: Callable[[], bool]) -> bool:
    """Run `child` in a forked child; return whether it ended in time and returned True."""
    process = os.fork()
    if process == 0:
        try:
            signal.alarm(10)
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def digests(folder: Path) -> bytes:
    """Return a digest of each file, read by another process: closing a file here would free its
    locks."""
    return subprocess.check_output(["find", folder, "-type", "f", "-exec", "sha256sum", "{}", ";"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_refuses_everything_and_the_parent_goes_on(tmp_path):
    """In a child every call is refused at once, whatever locks the parent's threads held. It may
    open another engine in another folder. Neither that nor closing changes the parent's folder
    or releases its lock."""
    write_bundle(tmp_path / "bundle")
    folder, transport = tmp_path / "state", FakeTransport()
    options = {"releases": "http://127.0.0.1:1", "root": b"{}", "window_s": 60.0}
    with ExitStack() as parent:
        engine = parent.enter_context(
            Engine.open(tmp_path / "bundle", folder, transport=transport, **options)
        )
        locks = locks_of(engine)
        assert len(locks) >= 10
        slate = engine.recommend("anna")
        assert engine.reward(slate, slate[0], 1.0).stored
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                held.set()
                forked.wait()

        def child() -> bool:
            inert = all(refuses(call) for call in calls(engine, slate))
            engine.close()
            with Engine.open(tmp_path / "bundle", tmp_path / "other") as own:
                other = own.recommend("anna")
                works = own.reward(other, other[0], 1.0).stored
            return inert and works

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        before = digests(folder)
        assert fork(child)
        assert digests(folder) == before
        assert run(OPEN, folder)[1] == 3
        forked.set()
        holder.join()
        slate = engine.recommend("anna")
        assert engine.reward(slate, slate[0], 1.0).stored
        assert engine.flush(20.0)
        assert [event.seq for batch in transport.batches for event in batch] == [1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_ends_leaves_the_parents_outbox_alone(tmp_path):
    """A child that exits normally, its objects finalized, releases no lock, and the parent goes
    on."""
    write_bundle(tmp_path / "bundle")
    folder = tmp_path / "state"
    command = [sys.executable, "-c", FORK, tmp_path / "bundle", folder]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        parent.stdout.readline()
        assert (folder / "outbox.db-wal").stat().st_size > 0, "expected no checkpoint by the child"
        assert run(OPEN, folder)[1] == 3
        parent.stdin.close()
        assert parent.wait(20) == 0
    outbox = Outbox(folder, clock=SystemClock())
    assert outbox.counters().pending == 4
    outbox.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_closes_leaves_the_parents_releases_alone(tmp_path):
    """A child that closes neither confirms a release in the parent's folder nor clears its
    trial."""
    write_bundle(tmp_path / "bundle")
    slots = tmp_path / "state" / "bundles" / "slots.json"
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        before = slots.read_bytes()
        assert fork(lambda: engine.close() is None)
        assert slots.read_bytes() == before
        engine.recommend("anna")
    assert b'"confirmed":true' in slots.read_bytes()


OPEN = """
import sys
from pathlib import Path
from sanderling.runtime.clock import SystemClock
from sanderling.errors import StorageError
from sanderling.outbox.outbox import Outbox
try:
    Outbox(Path(sys.argv[1]), clock=SystemClock())
except StorageError as error:
    sys.exit(3 if "found another" in str(error) else 4)
"""

WITHOUT_POSIX = """
import sys
sys.modules.update(fcntl=None, resource=None)
from sanderling import Engine
for _ in range(2):
    with Engine.open(sys.argv[1], sys.argv[2], verify=True) as engine:
        slate = engine.recommend("anna", context="rainy")
        assert engine.reward(slate, slate[0], 1.0, timeout_s=10.0), "not stored"
        engine.upsert_items([{"id": "new", "text": "new"}])
        assert engine.counters()["encoder"].failed == 0
"""

FORK = """
import os, sys
from sanderling import Engine
engine = Engine.open(sys.argv[1], sys.argv[2])
slate = engine.recommend("anna")
stored = engine.reward(slate, slate[0], 1.0, timeout_s=10.0).stored
if os.fork() == 0:
    sys.exit(0)
status = os.wait()[1]
print(flush=True)
sys.stdin.read()
slate = engine.recommend("anna")
stored &= engine.reward(slate, slate[0], 1.0, timeout_s=10.0).stored
engine.close()
sys.exit(0 if stored and status == 0 else 1)
"""

AT_EXIT = """
import atexit, os, sys
from sanderling import Engine
engine = Engine.open(sys.argv[1], sys.argv[2])
def last():
    slate = engine.recommend("anna")
    stored = engine.reward(slate, slate[0], 1.0, timeout_s=10.0)
    open(sys.argv[2] + "/last", "w").write(str(stored.stored))
atexit.register(last)
"""


def test_an_engine_works_until_the_interpreter_ends(tmp_path):
    """A function called at exit still recommends and stores a reward; the process ends without
    `close`."""
    write_bundle(tmp_path / "bundle")
    seconds, status = run(AT_EXIT, tmp_path / "bundle", tmp_path / "state")
    assert (status, seconds < 8, (tmp_path / "state" / "last").read_text()) == (0, True, "True")
    outbox = Outbox(tmp_path / "state", clock=SystemClock())
    assert outbox.counters().pending == 2
    outbox.close()


def descriptors_of(path: Path) -> int:
    """Return how many open descriptors of this process lead to one file."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.resolve() == path for link in links)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(outbox: Outbox, make: EventFactory, rounds: int) -> None:
    """Record ten decisions and send them, `rounds` times."""
    transport = FakeTransport()
    uploader = Uploader(outbox, transport, clock=SystemClock(), rng=random.Random(0))
    for _ in range(rounds):
        outbox.put_durable([make.decision() for _ in range(10)])
        transport.batches.clear()
        transport.headers.clear()
        while outbox.counters().pending:
            uploader.step()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_opening_and_closing_leaks_nothing(tmp_path):
    """After 60 openings there are no more descriptors and threads than after the first."""
    counts = []
    for _ in range(60):
        outbox = Outbox(tmp_path, clock=SystemClock())
        outbox.put_durable([])
        outbox.close()
        counts.append((descriptors(), threading.active_count()))
    assert all(last <= first for first, last in zip(counts[0], counts[-1], strict=True))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_child_never_closes_the_parents_connections(tmp_path):
    """A connection whose last reference is dropped in a child stays open there: closing it
    during the parent's transaction would change the memory that both share."""
    path = tmp_path / "outbox.db"
    connections = [connect(path, WRITING)]
    connections[0].execute("CREATE TABLE one (two)")
    opened = descriptors_of(path)
    assert opened > 0
    assert fork(lambda: connections.clear() or descriptors_of(path) == opened)
    connections[0].close()
    assert descriptors_of(path) == 0


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_uploads_do_not_leak(tmp_path):
    """Over 10,000 uploads, after 1,000 to warm up, memory grows by less than 1 kB per 1,000
    decisions."""
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


def test_an_engine_works_where_posix_is_missing(tmp_path):
    """Without `fcntl` and `resource`, as on Windows, an engine verifies, stores and reopens."""
    write_bundle(tmp_path / "bundle")
    arguments = [tmp_path / "bundle", tmp_path / "state"]
    command = [sys.executable, "-c", WITHOUT_POSIX, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
