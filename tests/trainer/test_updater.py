"""Updates: the parent and its child process, what is requested, crashes while publishing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, UpdateError
from sanderling.releases.slots import FILE
from sanderling.runtime.child_process import CHILD_MODULES
from sanderling_trainer.releases.errors import ReleaseError
from tests.support.releases import ITEMS, ReleaseWorld, never_respond

pytestmark = pytest.mark.lab

ENDLESS = """
import sanderling.ranking.golden_check
sanderling.ranking.golden_check.faults = lambda bundle: any(iter(int, 1))
"""


def test_stored_metadata_is_not_requested_again(world: ReleaseWorld) -> None:
    """Metadata is kept on the device: an update without news costs two small requests."""
    world.fetch()
    world.server.requests.clear()
    assert world.fetch(1) is None
    assert world.server.requests == ["/metadata/2.root.json", "/metadata/timestamp.json"]


def test_one_update_at_a_time(world: ReleaseWorld) -> None:
    """A second update of the same state folder is refused while the first runs, and does not
    disturb it.
    """
    reached, released = threading.Event(), threading.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        reached.set()
        while not released.is_set():
            await asyncio.sleep(0.005)
        await world.server.files(scope, receive, send)

    world.server.overrides["golden.json"] = hold
    first = threading.Thread(target=world.fetch)
    first.start()
    assert reached.wait(10)
    with pytest.raises(UpdateError, match="another update is running"):
        world.fetch()
    released.set()
    first.join()
    assert sorted(path.name for path in world.slots.folder.iterdir()) == ["1"]


def test_child_without_an_answer(world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that does not exist, and ones that answer nothing, are an `UpdateError`."""
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    with pytest.raises(UpdateError, match=r"could not be started .* '/does/not/exist'"):
        world.fetch()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UpdateError, match="ended with status 1: no error message"):
        world.fetch()
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises(UpdateError, match="answer cannot be read"):
        world.fetch()


def test_a_fault_of_the_child_names_its_error(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that ends with a traceback is an `UpdateError` with the last line of it."""
    (world.folder / "sitecustomize.py").write_text("import sys\nsys.modules['urllib3'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(world.folder), *sys.path]))
    with pytest.raises(UpdateError, match=r"ended with status 1: ModuleNotFoundError: .*urllib3"):
        world.fetch()


def test_update_needs_its_extra(world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tuf the error names the extra to install."""
    (world.folder / "sitecustomize.py").write_text("import sys\nsys.modules['tuf'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(world.folder), *sys.path]))
    with pytest.raises(UpdateError, match=r"pip install 'sanderling\[update\]'"):
        world.fetch()


def test_the_parent_stays_light() -> None:
    """Importing the parent's side of an update loads neither tuf nor the encoder's native
    libraries.
    """
    heavy = ("tuf", "cryptography", "onnxruntime", "tokenizers")
    code = (
        "import sys, sanderling.releases.updater;"
        f" print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_a_damaged_root(world: ReleaseWorld) -> None:
    """A root.json that the app has damaged, or another file in its place, is refused and shown."""
    other = (world.repository / "metadata" / "timestamp.json").read_bytes()
    for world.root in (b"", b"{}", b"garbage", other):
        with pytest.raises(UpdateError, match=r"root: expected the repository's root.json.* found"):
            world.fetch()


def test_damaged_slots(world: ReleaseWorld) -> None:
    """Without a readable state of the installed bundles nothing is fetched: a blocked release might
    return.
    """
    world.slots.folder.mkdir(parents=True)
    (world.slots.folder / FILE).write_bytes(b"garbage")
    with pytest.raises(StorageError, match=FILE):
        world.fetch()
    assert world.server.requests == []


def test_tokenizer_that_panics(world: ReleaseWorld) -> None:
    """A release whose tokenizer panics, or fails where it ought to, is refused and blocked, and the
    old bundle stays.
    """
    world.fetch()
    replace = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    change_tokenizer(world, [replace], "a" * 40 + "!")
    world.fetch_fails("release 2 is refused", 1)
    assert 2 in world.slots.state().blocked
    assert [path.name for path in world.slots.folder.iterdir() if path.is_dir()] == ["1"]


def test_a_release_that_swells_is_blocked_after_one_try(world: ReleaseWorld) -> None:
    """A tokenizer that needs terabytes is ended by the limit of memory, and not fetched again."""
    more = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    change_tokenizer(world, [more] * 5, "a")
    world.fetch_fails("release 2 is refused", 1)
    world.server.downloads()
    assert world.fetch(1) is None
    assert world.server.downloads() == {}


def test_a_release_that_hangs_is_blocked_after_one_try(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that computes for ever is ended at its processor time, and not begun again."""
    world.publish("two")
    (world.folder / "sitecustomize.py").write_text(ENDLESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(world.folder), *sys.path]))
    world.fetch_fails("release 2 is refused: .*processor time", 1, probe_cpu_s=1)
    assert 2 in world.slots.state().blocked
    world.server.downloads()
    assert world.fetch(1) is None
    assert world.server.downloads() == {}


def test_an_update_that_is_cut_short_leaves_nothing(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update whose time ends in a trial is stopped with it, blocks nothing and leaves no
    `.incoming`.
    """
    world.publish("two")
    (world.folder / "sitecustomize.py").write_text(ENDLESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(world.folder), *sys.path]))
    world.fetch_fails("took longer than|more time", 1, timeout_s=4.0)
    assert 2 not in world.slots.state().blocked
    assert list(world.slots.folder.glob(".incoming")) == []
    monkeypatch.undo()
    (world.folder / "sitecustomize.py").unlink()
    assert world.fetch(1) == world.slots.path(2)


def test_a_worker_that_is_stopped_leaves_nothing(world: ReleaseWorld) -> None:
    """An update whose time ends in a download leaves no `.incoming`, and files of an update are
    private.
    """
    world.server.overrides[ITEMS] = never_respond
    world.fetch_fails("took longer than 2 s", timeout_s=2.0)
    assert list(world.slots.folder.glob(".incoming")) == []
    world.server.overrides.clear()
    assert world.fetch() == world.slots.path(1)
    state = world.slots.folder.parent
    modes = {stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_children_are_started_by_the_apps_command(world: ReleaseWorld) -> None:
    """With `child_command` the app itself is the updating child and the one that tries a bundle."""
    app, started = world.folder / "app.py", world.folder / "started"
    app.write_text(
        "import sys, sanderling\n"
        f"print(sys.argv[2], file=open({str(started)!r}, 'a'))\n"
        "sanderling.run_child(sys.argv[2:])\n"
    )
    assert world.fetch(child_command=[sys.executable, str(app), "--child"]) == world.slots.path(1)
    assert started.read_text().split() == list(CHILD_MODULES)


def test_download_errors_name_the_address(world: ReleaseWorld) -> None:
    """A missing file and a refused connection are told with the address, in plain words."""
    world.target(1, ITEMS).unlink()
    world.fetch_fails(rf"a download failed: http://.*{ITEMS}: the server answered with status 404")
    world.server.stop()
    world.fetch_fails(r"a download failed: http://127.*/metadata/.*: no connection: .*refused")


def change_tokenizer(world: ReleaseWorld, normalizers: list[dict], text: str) -> None:
    """Publish release 2 with other normalizers, and with a golden text that meets them."""
    tokenizer = json.loads((world.folder / "two" / "tokenizer.json").read_bytes())
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [tokenizer["normalizer"], *normalizers],
    }
    golden = json.loads((world.folder / "two" / "golden.json").read_bytes())
    golden["texts"][0]["text"] = text
    (world.folder / "two" / "golden.json").write_text(json.dumps(golden))
    world.replace_file("two", "tokenizer.json", json.dumps(tokenizer).encode())
    world.publish_unchecked("two")


def test_timestamp_is_written_last(world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that the timestamp leads to is on the disk before the timestamp is."""
    written: list[str] = []
    rename, link = Path.rename, os.link

    def renamed(part: Path, path: Path) -> Path:
        written.append(Path(path).name)
        return rename(part, path)

    def linked(part: Path, path: Path) -> None:
        written.append(Path(path).name)
        link(part, path)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(os, "link", linked)
    world.publish("two")
    assert written[-3:] == ["3.targets.json", "3.snapshot.json", "timestamp.json"]


def test_a_damaged_key_is_named(world: ReleaseWorld) -> None:
    """A file that holds no private key is named."""
    (world.keys / "targets.pem").write_bytes(b"nonsense")
    with pytest.raises(ReleaseError, match=r"targets\.pem: expected a private key, in PEM"):
        world.publish("two")


def test_processes_killed_at_random(world: ReleaseWorld) -> None:
    """However often parent and child are killed, installed bundles are whole and `highest` never
    falls.
    """
    code = (
        "import sys; from pathlib import Path\n"
        "from sanderling.releases.slots import Slots\n"
        "from sanderling.releases.updater import UpdateRequest, fetch\n"
        "slots = Slots(Path(sys.argv[2])); slots.current()\n"
        "root = Path(sys.argv[3]).read_bytes()\n"
        "current = slots.state().current or 0\n"
        "new = fetch(UpdateRequest(sys.argv[1], root, sys.argv[2], 'demo', current))\n"
        "if new: slots.activate(int(new.name)); slots.current(); slots.confirm()\n"
    )
    world.publish("two")
    root = world.repository / "metadata" / "1.root.json"
    slots, highest = world.slots, 0
    command = [sys.executable, "-c", code, world.server.url, str(slots.folder), str(root)]
    for delay in (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for folder in slots.installed():
            Bundle.open(folder, verify=True)
        assert slots.state().highest >= highest
        highest = slots.state().highest
    _run_when_free(command)
    assert slots.state().current == 2 or 2 in slots.state().blocked


def _run_when_free(command: list[str]) -> None:
    """Run an updating command; again while the updater of a killed parent is still at work."""
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "another update is running" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
