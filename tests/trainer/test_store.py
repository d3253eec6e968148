"""The place of files keeps its promises on a folder and on a real S3 interface."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sanderling_trainer.cli import operations
from sanderling_trainer.collector.server import create_app
from sanderling_trainer.event_log import object_store as place
from sanderling_trainer.event_log.object_store import (
    LocalObjectStore,
    ObjectStore,
    RemoteObjectStore,
    open_store,
)
from sanderling_trainer.event_log.reader import read_parts, read_segments

pytestmark = pytest.mark.lab


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> ObjectStore:
    return open_store(
        str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")
    )


def test_what_was_put_is_there_until_it_is_deleted(store):
    """A file is found, listed, read back, replaced whole and deleted, however deep its folder."""
    assert store.names("a") == []
    store.put("a/b/2", b"two")
    store.put("a/1", b"one")
    store.put("a/1", b"ONE")
    assert store.names("a") == ["a/1", "a/b/2"]
    assert (store.get("a/1"), store.get("a/b/2"), store.has("a/1"), store.has("a/3")) == (
        b"ONE",
        b"two",
        True,
        False,
    )
    store.delete("a/1")
    store.delete("a/1")
    assert store.names("a") == ["a/b/2"]


def test_several_may_write_one_file_at_once(tmp_path):
    """Of twenty threads that put one name each succeeds, and the file is one of theirs, whole."""
    store = LocalObjectStore(tmp_path)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda number: store.put("a/1", b"%04d" % number * 1000), range(20)))
    assert store.get("a/1") in [b"%04d" % number * 1000 for number in range(20)]
    assert store.names("a") == ["a/1"]


def test_of_several_who_create_a_file_one_succeeds(store):
    """A file that is there is not written over by `create`, and of twenty threads at once one succeeds."""

    def create(number: int) -> bool:
        try:
            store.create("a/1", b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        succeeded = list(pool.map(create, range(20)))
    assert sum(succeeded) == 1
    assert store.get("a/1") == b"%d" % succeeded.index(True)
    assert store.names("a") == ["a/1"]


def test_an_absent_file_is_not_found(store):
    """Reading what is not there is a FileNotFoundError, of a folder and of a bucket."""
    with pytest.raises(FileNotFoundError):
        store.get("nothing")


def test_a_server_that_is_not_there_is_an_os_error(monkeypatch):
    """No answer from the object store is trouble of the storage, not a crash."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    absent = RemoteObjectStore("s3://nowhere/store")
    for act in (
        lambda: absent.put("a", b""),
        lambda: absent.create("a", b""),
        lambda: absent.get("a"),
        lambda: absent.has("a"),
    ):
        with pytest.raises(OSError, match="nowhere"):
            act()


class Slowly(BaseHTTPRequestHandler):
    """An object of which one byte comes in each tenth of a second, and puts that take as long."""

    def do_GET(self) -> None:
        self.send_response(200)
        dated = {
            "content-length": "6",
            "etag": '"x"',
            "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        }
        for name, value in dated.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # it was not waited for
            for _ in range(6):
                time.sleep(0.1)
                self.wfile.write(b"x")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.6)
        with suppress(OSError):
            self.send_response(200)
            self.send_header("etag", '"x"')
            self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def slow_bucket(monkeypatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slowly) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "key")
        yield "s3://bucket/store"
        server.shutdown()


def test_a_large_file_on_a_slow_link_comes_to_who_waits(slow_bucket):
    """What does not come within a collector's time comes to a job, which opens the store with more."""
    for act in (lambda store: store.get("a"), lambda store: store.put("a", b"one")):
        with pytest.raises(OSError, match="a: "):
            act(open_store(slow_bucket, timedelta(seconds=0.3)))
        act(open_store(slow_bucket, timedelta(seconds=60)))


def test_jobs_and_readers_open_the_store_with_time_for_large_files(monkeypatch):
    """Compaction, erasure, rotation and readers wait for minutes, a collector, whose devices wait, for seconds."""
    opened: list[timedelta] = []

    def note(url: str, timeout: timedelta = place.REMOTE_TIMEOUT) -> None:
        opened.append(timeout)
        raise InterruptedError

    monkeypatch.setattr(place, "RemoteObjectStore", note)
    url = "s3://bucket/store"
    for act in (
        lambda: operations.compact(url),
        lambda: operations.erase(url, "a1" * 16),
        lambda: operations.rotate(url),
        lambda: read_segments(url),
        lambda: list(read_parts(url)),
        lambda: create_app(url),
    ):
        with pytest.raises(InterruptedError):
            act()
    assert opened == [place.JOB_TIMEOUT] * 5 + [place.REMOTE_TIMEOUT]
    assert place.REMOTE_TIMEOUT < timedelta(minutes=1) < place.JOB_TIMEOUT


def test_a_crash_leaves_no_half_file(tmp_path):
    """What was written only in part has no name yet, and is not listed."""
    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    (tmp_path / "a" / ".2.part").write_bytes(b"ha")
    assert store.names("a") == ["a/1"]


@pytest.mark.parametrize(
    ("owner", "broken", "act"),
    [
        (os, "fsync", "put"),
        (os, "fsync", "create"),
        (Path, "rename", "put"),
        (os, "link", "create"),
    ],
)
def test_what_fails_leaves_nothing(tmp_path, monkeypatch, owner, broken, act):
    """A write, rename or link that the disk refuses leaves no half-written file, so that a full disk gets no fuller."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    monkeypatch.setattr(owner, broken, full)
    with pytest.raises(OSError, match="No space"):
        getattr(store, act)("a/2", b"two")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]


def test_what_a_crash_left_is_removed_when_it_is_old(tmp_path):
    """A half-written file goes when nobody has touched it for so long; one that is being written stays."""
    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    old, new = tmp_path / "a" / ".2.part", tmp_path / "a" / ".3.part"
    for path in (old, new):
        path.write_bytes(b"ha")
    os.utime(old, (0, new.stat().st_mtime - 31))
    store.clean(30)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".3.part", "1"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_folder_that_somebody_else_made_is_flushed(tmp_path, monkeypatch):
    """Who made a folder may have died before it was flushed: the next process flushes its entry, once."""
    (tmp_path / "a").mkdir()
    flushed: list[Path] = []
    monkeypatch.setattr(place, "flush_path", flushed.append)
    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    assert tmp_path in flushed
    flushed.clear()
    store.put("a/2", b"two")
    assert flushed == [tmp_path / "a"]


def test_a_file_is_flushed_before_its_name_and_the_name_before_the_answer(tmp_path, monkeypatch):
    """File, name and folder are flushed in this order; a deletion flushes the folder."""
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watched_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"")
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    store.put("a/2", b"")
    store.delete("a/1")
    assert calls == ["file", "rename", "folder", "folder"]


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path):
    """Whoever tidies empty folders away stops no collector."""
    store = LocalObjectStore(tmp_path / "store")
    store.put("segments/2025-06-15/a", b"one")
    shutil.rmtree(tmp_path / "store" / "segments")
    store.put("segments/2025-06-15/b", b"two")
    assert store.names("segments") == ["segments/2025-06-15/b"]
