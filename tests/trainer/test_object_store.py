"""The object store on a folder and on an S3 interface."""

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
    RemoteObjectStore,
    open_store,
)
from sanderling_trainer.event_log.reader import read_partitions, read_segments

pytestmark = pytest.mark.lab


def test_a_file_exists_until_it_is_deleted(store):
    """A file is found, listed, read, replaced and deleted, however deep its folder."""
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


def test_concurrent_puts_of_one_file_succeed(tmp_path):
    """Twenty threads put one file: each succeeds, and the file is complete."""
    store = LocalObjectStore(tmp_path)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda number: store.put("a/1", b"%04d" % number * 1000), range(20)))
    assert store.get("a/1") in [b"%04d" % number * 1000 for number in range(20)]
    assert store.names("a") == ["a/1"]


def test_of_concurrent_creates_one_succeeds(store):
    """`create` does not overwrite a file, and of twenty threads one succeeds."""

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


def test_an_absent_file_raises_file_not_found(store):
    """Reading an absent file raises FileNotFoundError, from a folder and from a bucket."""
    with pytest.raises(FileNotFoundError):
        store.get("nothing")


def test_an_unreachable_server_raises_os_error(monkeypatch):
    """Without an answer from the object store each operation raises OSError with the bucket."""
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


class SlowHandler(BaseHTTPRequestHandler):
    """Sends an object at one byte in 0.1 s, and takes as long for a put."""

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
        with suppress(OSError):  # the client timed out
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
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler) as server:
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


def test_the_timeout_decides_about_large_files_on_slow_links(slow_bucket):
    """A slow transfer fails with a short timeout, and succeeds with a long one, as jobs have it."""
    for act in (lambda store: store.get("a"), lambda store: store.put("a", b"one")):
        with pytest.raises(OSError, match="a: "):
            act(open_store(slow_bucket, timedelta(seconds=0.3)))
        act(open_store(slow_bucket, timedelta(seconds=60)))


def test_jobs_and_readers_open_the_store_with_time_for_large_files(monkeypatch):
    """Compaction, erasure, rotation and readers wait for minutes; a collector, whose devices wait,
    for seconds.
    """
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
        lambda: list(read_partitions(url)),
        lambda: create_app(url),
    ):
        with pytest.raises(InterruptedError):
            act()
    assert opened == [place.JOB_TIMEOUT] * 5 + [place.REMOTE_TIMEOUT]
    assert place.REMOTE_TIMEOUT < timedelta(minutes=1) < place.JOB_TIMEOUT


def test_a_crash_leaves_no_half_file(tmp_path):
    """A half-written file is not listed."""
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
def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch, owner, broken, act):
    """A failed flush, rename or link leaves no half-written file, so that a full disk does not get
    fuller.
    """

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    monkeypatch.setattr(owner, broken, full)
    with pytest.raises(OSError, match="No space"):
        getattr(store, act)("a/2", b"two")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1"]


def test_old_half_written_files_are_removed(tmp_path):
    """`clean` removes half-written files that are old, and leaves those that are being written."""
    store = LocalObjectStore(tmp_path)
    store.put("a/1", b"one")
    old, new = tmp_path / "a" / ".2.part", tmp_path / "a" / ".3.part"
    for path in (old, new):
        path.write_bytes(b"ha")
    os.utime(old, (0, new.stat().st_mtime - 31))
    store.clean(30)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".3.part", "1"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_folder_that_exists_is_flushed_once(tmp_path, monkeypatch):
    """The maker of a folder may have died before the flush: the next process flushes it, once."""
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
    """A put flushes the file, renames it, and flushes the folder; a deletion flushes the folder."""
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


def test_a_folder_that_was_removed_is_created_again(tmp_path):
    """Removing a folder does not stop a collector."""
    store = LocalObjectStore(tmp_path / "store")
    store.put("segments/2025-06-15/a", b"one")
    shutil.rmtree(tmp_path / "store" / "segments")
    store.put("segments/2025-06-15/b", b"two")
    assert store.names("segments") == ["segments/2025-06-15/b"]
