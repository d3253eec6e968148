"""The edges of an update: the host and its child, what is asked for, and a publisher that dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sanderling.bundle import manifest as manifests
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, UpdateError
from sanderling.releases.slots import FILE, Slots
from sanderling.releases.updater import fetch
from sanderling_trainer import release_repository as releases
from sanderling_trainer.release_repository import ReleaseError, create_repository, publish
from tests.support.bundles import reseal, write_bundle

pytestmark = pytest.mark.lab


@dataclass
class World:
    """A repository with release 1, a server whose answers can be held back, and a device."""

    folder: Path
    root: bytes
    url: str
    asked: list[str]
    hold: threading.Event
    held: threading.Event

    @property
    def device(self) -> Path:
        return self.folder / "state" / "bundles"

    def fetch(self, current: int = 0) -> Path | None:
        return fetch(
            self.url, self.root, self.device, app="demo", current_release=current, timeout_s=30
        )

    def publish(self, name: str) -> int:
        return publish(self.folder / name, self.folder / "repository", self.folder / "keys")

    def alter_second(self, name: str, content: bytes) -> None:
        (self.folder / "two" / name).write_bytes(content)
        reseal(self.folder / "two")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "one", release=1)
    write_bundle(folder / "two", release=2, seed=1)
    return folder


@pytest.fixture
def world(bundles: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(bundles, tmp_path, dirs_exist_ok=True)
    root = create_repository(tmp_path / "repository", tmp_path / "keys")
    asked: list[str] = []
    hold, held = threading.Event(), threading.Event()
    hold.set()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "repository"))  # type: ignore[arg-type]

        def do_GET(self) -> None:  # the name that http.server calls
            asked.append(self.path)
            if self.path.endswith("golden.json"):
                held.set()
                hold.wait(10)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
    made = World(
        tmp_path, root, f"http://127.0.0.1:{listener.server_address[1]}", asked, hold, held
    )
    made.publish("one")
    yield made
    listener.shutdown()
    listener.server_close()


def test_known_metadata_is_not_asked_for(world: World) -> None:
    """What the device has seen is kept on its disk: without news an update costs two small questions."""
    world.fetch()
    world.asked.clear()
    assert world.fetch(1) is None
    assert world.asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]


def test_one_update_at_a_time(world: World) -> None:
    """A second update of the same state folder is refused while the first runs, and does not disturb it."""
    world.hold.clear()
    first = threading.Thread(target=world.fetch)
    first.start()
    assert world.held.wait(10)
    with pytest.raises(UpdateError, match="another update is running"):
        world.fetch()
    world.hold.set()
    first.join()
    assert sorted(path.name for path in world.device.iterdir()) == ["1"]


def test_child_without_an_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that is not there, and one that says nothing, are an `UpdateError`."""
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    with pytest.raises(UpdateError, match="could not be started with '/does/not/exist'"):
        world.fetch()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UpdateError, match="ended with status 1 and without an answer"):
        world.fetch()


def test_update_needs_its_extra(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tuf the error names the extra to install."""
    (world.folder / "sitecustomize.py").write_text("import sys\nsys.modules['tuf'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(world.folder))
    with pytest.raises(UpdateError, match=r"pip install 'sanderling\[update\]'"):
        world.fetch()


def test_the_host_stays_light() -> None:
    """Importing the host's side of updating loads neither tuf nor the native libraries of the encoder."""
    heavy = ("tuf", "cryptography", "onnxruntime", "tokenizers")
    code = f"import sys, sanderling.releases.updater; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip()
        == b"[]"
    )


def test_root_that_is_none(world: World) -> None:
    """A root.json that the app has spoiled is refused."""
    for world.root in (b"", b"{}", b"garbage"):
        with pytest.raises(UpdateError, match="metadata is not valid"):
            world.fetch()


def test_damaged_slots(world: World) -> None:
    """When the state of the installed bundles is damaged nothing is fetched: a blocked release might come back."""
    world.device.mkdir(parents=True)
    (world.device / FILE).write_bytes(b"garbage")
    with pytest.raises(StorageError, match=FILE):
        world.fetch()
    assert world.asked == []


def test_tokenizer_that_panics(world: World) -> None:
    """A panic of a native library, which is no `Exception`, ends as `UpdateError`, and the old bundle stays."""
    world.fetch()
    tokenizer = json.loads((world.folder / "two" / "tokenizer.json").read_bytes())
    replace = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [tokenizer["normalizer"], replace],
    }
    golden = json.loads((world.folder / "two" / "golden.json").read_bytes())
    golden["texts"][0]["text"] = "a" * 40 + "!"
    (world.folder / "two" / "golden.json").write_text(json.dumps(golden))
    world.alter_second("tokenizer.json", json.dumps(tokenizer).encode())
    world.publish("two")
    with pytest.raises(UpdateError, match=r"Panic|is refused"):
        world.fetch(1)
    assert [path.name for path in world.device.iterdir() if path.is_dir()] == ["1"]


def test_publishing_is_atomic(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that dies at any write has published nothing, and trying again succeeds."""

    class Crash(BaseException):
        pass

    replace, left = releases._replace, 0

    def crash(partial: Path, path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash
        replace(partial, path)

    writes = len(manifests.FILES) + len(["manifest", "targets", "snapshot", "timestamp"])
    timestamp = world.folder / "repository" / "metadata" / "timestamp.json"
    before = timestamp.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(releases, "_replace", crash)
        for step in range(writes):
            left = step
            with pytest.raises(Crash):
                world.publish("two")
            assert timestamp.read_bytes() == before
    assert world.fetch(1) is None
    world.publish("two")
    assert world.fetch(1) == world.device / "2"


def test_timestamp_is_written_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that the timestamp leads to is on the disk before the timestamp is."""
    written: list[str] = []
    replace = releases._replace

    def record(partial: Path, path: Path) -> None:
        written.append(path.name)
        replace(partial, path)

    monkeypatch.setattr(releases, "_replace", record)
    world.publish("two")
    assert written[-3:] == ["3.targets.json", "3.snapshot.json", "timestamp.json"]


def test_missing_key(world: World) -> None:
    """A key that is no key is named."""
    (world.folder / "keys" / "targets.pem").write_bytes(b"nonsense")
    with pytest.raises(ReleaseError, match=r"targets\.pem: expected the private key of targets"):
        world.publish("two")


def test_host_killed_at_random(world: World) -> None:
    """However often host and child are killed together, every installed bundle is whole and `highest` never falls."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sanderling.releases.slots import Slots; from sanderling.releases.updater import fetch\n"
        "slots = Slots(Path(sys.argv[2])); slots.current()\n"
        "root = Path(sys.argv[3]).read_bytes()\n"
        "current = slots.state().current or 0\n"
        "found = fetch(sys.argv[1], root, slots.folder, app='demo', current_release=current)\n"
        "if found: slots.activate(int(found.name)); slots.current(); slots.confirm()\n"
    )
    world.publish("two")
    root = world.folder / "repository" / "metadata" / "1.root.json"
    command = [sys.executable, "-c", code, world.url, str(world.device), str(root)]
    slots, highest = Slots(world.device), 0
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
    subprocess.run(command, check=True)
    assert slots.state().current == 2 or 2 in slots.state().blocked
